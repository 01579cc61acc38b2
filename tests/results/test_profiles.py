import pytest

from growlib.results import PROFILES, by_profile


@pytest.mark.parametrize("profile", PROFILES)
def test_each_profile_gets_its_own_value(profile):
    assert by_profile(profile, quick="quick", standard="standard", full="full") == profile


@pytest.mark.parametrize("profile", ["fast", "Quick", "", None])
def test_an_unknown_profile_is_named_with_the_known_ones(profile):
    with pytest.raises(ValueError, match="quick, standard, full"):
        by_profile(profile, quick=1, standard=2, full=3)


@pytest.mark.parametrize("choices", [{}, {"quick": 1}, {"quick": 1, "standard": 2, "full": 3, "fast": 4}])
def test_a_missing_or_extra_choice_is_refused_whatever_the_profile(choices):
    with pytest.raises(TypeError, match="one value each"):
        by_profile("quick", **choices)
