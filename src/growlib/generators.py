"""The generators that random numbers come from: torch's own, and beside it that of a device."""

from contextlib import contextmanager

import torch


def states(device: torch.device) -> dict:
    """What the generators are, by the type of device: that of the CPU, and that of the device."""
    found = {"cpu": torch.get_rng_state()}
    if device.type not in found:
        found[device.type] = torch.get_device_module(device).get_rng_state(device)
    return found


def put_back(found: dict, device: torch.device):
    """Makes the generators what they were; that of a device which `states` has not seen stays as it is."""
    torch.set_rng_state(found["cpu"])
    if device.type != "cpu" and device.type in found:
        torch.get_device_module(device).set_rng_state(found[device.type], device)


@contextmanager
def kept(device: torch.device):
    """Whatever is drawn inside, the generators are afterwards what they were."""
    before = states(device)
    try:
        yield
    finally:
        put_back(before, device)
