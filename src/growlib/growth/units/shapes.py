"""The dimensions of a tensor whose entries keep their order."""

from growlib.growth.units.sizes import Size, factors_of, fixed, product, split, telling


def reshape(dims: list[Size], shape: tuple[int, ...], reason: str) -> list[Size]:
    """The dimensions of a tensor whose entries keep their order.

    Args:
        dims: Before.
        shape: The numbers after.
        reason: Why those may not change that no longer lie in whole dimensions.
    """
    factors, found = _merged([factor for dim in dims for factor in factors_of(dim)]), []
    for place, need in enumerate(shape):
        group, last = [], place == len(shape) - 1
        while factors and (need > 1 or last or (factors[0].size == 1 and shape[place] == 1 and not group)):
            factor = factors.pop(0)
            if need % factor.size == 0:
                group.append(factor)
                need //= factor.size
            elif factor.size % need == 0:
                first, rest = split(factor, need, reason)
                group.append(first)
                factors[:0] = factors_of(rest)
                need = 1
            else:
                for dim in dims:
                    dim.fix(reason)
                return [fixed(size, reason) for size in shape]
        found.append(product(group) if group else fixed(shape[place]))
    return found


def _merged(factors: list[Size]) -> list[Size]:
    """Neighbours that are fixed, as one."""
    merged = []
    for factor in factors:
        if merged and factor.kind == merged[-1].kind == "fixed":
            merged[-1] = fixed(merged[-1].size * factor.size, telling(merged[-1].reason, factor.reason))
        else:
            merged.append(factor)
    return merged
