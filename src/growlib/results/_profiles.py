"""How much a chapter computes: a minute on embedded data, ten minutes on the real data, or everything."""

PROFILES = ("quick", "standard", "full")


def by_profile(profile: str, **choices):
    """Return the choice that belongs to a profile.

    Args:
        profile: "quick" (embedded data, under a minute), "standard" (the real data, one seed) or "full" (all seeds).
        choices: one value for each of the three profiles, named after it.

    Returns:
        The value given for this profile.

    Raises:
        ValueError: the profile is unknown.
        TypeError: the choices do not name exactly the three profiles.
    """
    if profile not in PROFILES:
        raise ValueError(
            f"unknown profile {profile!r}: choose one of {', '.join(PROFILES)} "
            "(the `profile` parameter, or the GROWLIB_PROFILE environment variable)"
        )
    if set(choices) != set(PROFILES):
        raise TypeError(
            f"by_profile needs one value each for {', '.join(PROFILES)}, got {', '.join(choices) or 'none'}"
        )
    return choices[profile]
