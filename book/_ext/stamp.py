"""Write the title beside the logo, and under every page how its numbers were made: profile, packages, commit."""

import os
import subprocess
from importlib.metadata import version
from platform import python_version


def commit() -> str:
    """Return the short commit of the checkout, or nothing where git does not know one."""
    try:
        answer = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f", commit {answer.stdout.strip()}"


def add_stamp(app, config) -> None:
    """Add to the theme's options that jupyter-book has set."""
    config.html_theme_options["logo"] = {"text": config.project, "alt_text": ""}
    profile = os.environ.get("GROWLIB_PROFILE", "standard")
    config.html_theme_options["extra_footer"] = (
        f"<p>Notebooks executed in the <code>{profile}</code> profile with Python {python_version()}, "
        f"PyTorch {version('torch')}, growlib {version('growlib')}{commit()}.</p>"
    )


def setup(app) -> dict:
    """Register with Sphinx."""
    app.connect("config-inited", add_stamp, priority=100)
    return {"version": version("growlib"), "parallel_read_safe": True, "parallel_write_safe": True}
