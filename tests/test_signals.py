"""Signals against loops over units."""

import pytest
from networks import convnet, mlp

from growlib.signals import magnitude


@pytest.mark.parametrize("build", [mlp, convnet])
def test_magnitude_is_the_product_of_two_norms(build):
    model = build()
    for hidden in model.hidden:
        worth = magnitude(None, hidden)
        producer, consumer = hidden.producers[0], hidden.consumers[0]
        spread = hidden.spread(consumer)
        for unit in range(hidden.width):
            driven = producer.weight[unit].square().sum().sqrt()
            read = consumer.weight[:, unit * spread : (unit + 1) * spread].square().sum().sqrt()
            assert worth[unit].item() == pytest.approx((driven * read).item(), rel=1e-5)
