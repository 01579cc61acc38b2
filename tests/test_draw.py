"""The page that reads handwriting: its JavaScript against torch, and its buttons, in a headless browser."""

import base64
import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

BOOK = Path(__file__).parents[1] / "book"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync --virtual-time-budget=8000 --dump-dom"
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


def stages():
    text = (BOOK / "_static" / "grownet.js").read_text()
    return json.loads(text.removeprefix("window.GROWNET = ").rstrip(";\n"))


def run_in_page(script: str, folder: Path):
    """What a script finds in the page: it puts a JSON text into `document.title`."""
    body = re.search(r"```\{raw\} html\n(.*?)```", (BOOK / "draw.md").read_text(), re.S).group(1)
    page = folder / "page.html"
    static = (BOOK / "_static").as_uri()
    page.write_text(f"<title>-</title>{body.replace('../_static', static)}<script>{script}</script>")
    command = [CHROMIUM, *FLAGS.split(), f"--user-data-dir={folder}/profile", page.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
    return json.loads(html.unescape(re.search(r"<title>(.*?)</title>", shown, re.S).group(1)))


def test_every_stage_is_stored_whole():
    for stage in stages()["stages"]:
        hidden = np.frombuffer(base64.b64decode(stage["hidden"]["weight"]), np.int8)
        assert len(hidden) == stage["units"] * 784 and len(stage["hidden"]["bias"]) == stage["units"]
    assert [stage["units"] for stage in stages()["stages"]] == [64, 72, 80, 88, 96, 104]
    accuracies = [stage["test_accuracy"] for stage in stages()["stages"]]
    assert accuracies[-1] > accuracies[0] and accuracies[-1] > 0.97


def in_torch(stage, recorded, pixels):
    units = (pixels / 255 - recorded["mean"]) / recorded["std"]
    for name in ("hidden", "output"):
        layer = stage[name]
        bias = torch.tensor(layer["bias"])
        weight = torch.frombuffer(bytearray(base64.b64decode(layer["weight"])), dtype=torch.int8).float()
        units = weight.view(len(bias), -1) @ units * layer["scale"] + bias
        units = units.relu() if name == "hidden" else units
    return units.softmax(0)


@needs_browser
def test_the_page_computes_what_torch_computes(tmp_path):
    recorded = stages()
    pixels = torch.randint(0, 256, (784,), generator=torch.Generator().manual_seed(0)).float()
    script = f"""const pixels = {pixels.tolist()};
    document.title = JSON.stringify(GROWNET.stages.map(stage => drawADigit.classify(stage, pixels)));"""
    for stage, odds in zip(recorded["stages"], run_in_page(script, tmp_path), strict=True):
        torch.testing.assert_close(torch.tensor(odds), in_torch(stage, recorded, pixels), rtol=1e-3, atol=1e-5)


@needs_browser
def test_the_buttons_draw_and_the_slider_changes_the_stage(tmp_path):
    script = """
    const part = name => document.querySelector(`[data-part="${name}"]`), found = {read: [], labels: []};
    for (let i = 0; i < 10; i++) {
      part("example").click();
      found.read.push(part("verdict").textContent.match(/reads (\\d)/)[1]);
    }
    for (const stage of [0, 5]) {
      part("stage").value = stage;
      part("stage").dispatchEvent(new Event("input"));
      found.labels.push(part("label").textContent);
    }
    found.minds = document.querySelectorAll('[data-part="minds"] button').length;
    part("clear").click();
    found.cleared = part("verdict").textContent;
    document.title = JSON.stringify(found);"""
    found = run_in_page(script, tmp_path)
    drawn = [str((4 + i) % 10) for i in range(10)]
    assert sum(a == b for a, b in zip(found["read"], drawn, strict=True)) >= 9, found["read"]
    assert found["labels"][0].startswith("64 units, after epoch 1") and found["labels"][1].startswith("104 units")
    assert found["minds"] == 6 and found["cleared"] == "Draw a digit."


@needs_browser
def test_a_finger_draws(tmp_path):
    script = """
    const canvas = document.querySelector('[data-part="canvas"]'), box = canvas.getBoundingClientRect();
    const touch = (type, x, y) => canvas.dispatchEvent(new PointerEvent(type, {
      clientX: box.left + x * box.width, clientY: box.top + y * box.height, bubbles: true, pointerType: "touch"}));
    canvas.setPointerCapture = () => {};
    touch("pointerdown", .5, .15);
    for (let y = .2; y < .9; y += .05) touch("pointermove", .5, y);
    touch("pointerup", .5, .85);
    document.title = JSON.stringify(document.querySelector('[data-part="verdict"]').textContent);"""
    assert run_in_page(script, tmp_path).startswith("It reads 1")


def test_nothing_comes_from_elsewhere():
    for name in ("draw.md", "_static/draw.js"):
        assert not re.search(r"https?:|//cdn|fetch\(|XMLHttp", (BOOK / name).read_text())
