"""Caching: whole files or none, damage found, and no silent stand-in."""

import errno
import http.server
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from growlib import load
from growlib.data import store


def arrays(size=30):
    random = np.random.default_rng(0)
    return {
        "train_images": random.integers(0, 255, (size, 1, 4, 4)).astype(np.uint8),
        "train_labels": np.arange(size) % 3,
        "test_images": random.integers(0, 255, (6, 1, 4, 4)).astype(np.uint8),
        "test_labels": np.arange(6) % 3,
        "classes": np.array(["a", "b", "c"]),
    }


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("GROWLIB_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def online(monkeypatch):
    """torchvision's data sets, as they are after a download."""
    from torchvision import datasets

    calls = []

    def fake(channels):
        def make(folder, train, download):
            calls.append((train, download))
            shape = (12, 4, 5) if channels == 1 else (12, 4, 5, 3)
            images = np.random.default_rng(int(train)).integers(0, 255, shape).astype(np.uint8)
            return SimpleNamespace(data=images, targets=list(range(3)) * 4, classes=["0 - zero", "1 - one", "2 - two"])

        return make

    monkeypatch.setattr(datasets, "MNIST", fake(1))
    monkeypatch.setattr(datasets, "CIFAR10", fake(3))
    return calls


@pytest.fixture
def offline(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no route to host")

    from torchvision import datasets

    monkeypatch.setattr(datasets, "MNIST", fail)


def test_a_download_is_decoded_and_cached_once(root, online):
    data = load("mnist")
    assert online == [(True, True), (False, True)]
    assert data.shape == (1, 4, 5) and data.classes == ["0", "1", "2"]
    assert load("mnist").provenance == data.provenance and len(online) == 2
    assert [path.name for path in root.iterdir()] == ["mnist.npz"]


def test_colour_images_become_channels_first(root, online):
    raw = np.random.default_rng(1).integers(0, 255, (12, 4, 5, 3)).astype(np.uint8)
    assert np.array_equal(store.fetch("cifar10")["train_images"][3, 2], raw[3, :, :, 2])


def test_offline_the_error_tells_the_remedy_and_nothing_else_is_loaded(root, offline):
    with pytest.raises(OSError, match="mnist is not at .*no route to host.*set GROWLIB_DATA"):
        load("mnist")
    assert not (root / "mnist.npz").exists()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_cache_is_found_and_made_anew(root, online, damage):
    before = load("mnist").provenance
    content = bytearray((root / "mnist.npz").read_bytes())
    if damage == "flipped":
        content[len(content) // 3] ^= 0xFF
    else:
        content = content[: len(content) // 2] if damage == "truncated" else b""
    (root / "mnist.npz").write_bytes(content)
    with pytest.warns(UserWarning, match="damaged .*downloaded anew; the old one is now mnist.damaged.npz"):
        assert load("mnist").provenance == before
    assert (root / "mnist.damaged.npz").read_bytes() == bytes(content)
    assert sorted(path.name for path in root.iterdir()) == ["mnist.damaged.npz", "mnist.npz"]


def test_data_that_changed_under_a_valid_zip_is_damage(root, online):
    before = load("mnist").provenance
    with np.load(root / "mnist.npz") as file:
        found = dict(file)
    found["train_images"] = 255 - found["train_images"]
    np.savez(root / "mnist.npz", **found)
    with pytest.warns(UserWarning, match="its sha256 is no longer"):
        assert load("mnist").provenance == before


@given(st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_changed_byte_anywhere_is_damage_or_changes_nothing(tmp_path, data):
    store.write(tmp_path / "whole.npz", arrays())
    content = bytearray((tmp_path / "whole.npz").read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    (tmp_path / "changed.npz").write_bytes(content)
    try:
        found = store.read(tmp_path / "changed.npz")
    except ValueError:
        return
    assert store.fingerprint(found) == store.fingerprint(arrays())


FAKE = """
import sys, time, warnings
from types import SimpleNamespace
import numpy as np
from torchvision import datasets
from growlib import load

def slow(folder, train, download):
    open(folder + "/half", "w").write("half")
    print("downloading", flush=True)
    time.sleep({seconds})
    images = np.random.default_rng(int(train)).integers(0, 255, (12, 4, 5)).astype(np.uint8)
    return SimpleNamespace(data=images, targets=list(range(3)) * 4, classes=["0 - zero", "1 - one", "2 - two"])

datasets.MNIST = slow
print(load("mnist").provenance["sha256"], flush=True)
"""


def downloading(seconds):
    command = [sys.executable, "-c", FAKE.format(seconds=seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("damaged", [True, False])
def test_processes_that_miss_a_file_at_once_all_get_it(root, damaged):
    root.mkdir()
    if damaged:
        (root / "mnist.npz").write_bytes(b"half")
    processes = [downloading(0.1) for _ in range(4)]
    said = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said
    assert len({out.split()[-1] for out, _ in said}) == 1
    assert sorted(os.listdir(root)) == ["mnist.damaged.npz"] * damaged + ["mnist.npz"]
    if damaged:
        assert sum("downloaded anew" in error for _, error in said) >= 1


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_download_leaves_nothing_behind(root, how):
    process = downloading(60)
    assert process.stdout.readline() == "downloading\n"
    assert os.listdir(root) != []  # the negative control
    process.send_signal(how)
    process.communicate()
    end = time.monotonic() + 20
    while os.listdir(root) and time.monotonic() < end:
        time.sleep(0.01)
    assert process.returncode != 0 and os.listdir(root) == []


def test_the_cache_can_be_read_by_all_whom_the_umask_allows(root, online):
    before = os.umask(0o022)
    try:
        load("mnist")
    finally:
        os.umask(before)
    assert (root / "mnist.npz").stat().st_mode & 0o777 == 0o644


class Silent(http.server.BaseHTTPRequestHandler):
    """Promises a file, and sends the beginning of it only."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b"half")
        self.wfile.flush()
        self.server.closing.wait(30)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


def test_a_mirror_that_falls_silent_is_given_up(root, monkeypatch):
    from torchvision import datasets

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Silent)
    server.closing = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(datasets.MNIST, "mirrors", [f"http://127.0.0.1:{server.server_port}/"])
    monkeypatch.setattr(store, "PATIENCE", 0.5)
    began = time.monotonic()
    try:
        with pytest.raises(OSError, match=r"mnist is not at .* silent for 0.5 seconds is given up"):
            load("mnist")
    finally:
        server.closing.set()
        server.shutdown()
    assert time.monotonic() - began < 20 and os.listdir(root) == []


def test_a_file_of_another_format_in_the_cache_is_an_error_and_stays(root, online):
    root.mkdir()
    np.savez(root / "mnist.npz", **(arrays() | {"train_labels": np.arange(30)}))
    with pytest.raises(ValueError, match="reach from 0 to 29"):
        load("mnist")
    assert [path.name for path in root.iterdir()] == ["mnist.npz"] and online == []


def test_a_damaged_cache_offline_is_an_error_that_says_so(root, offline):
    store.write(root / "mnist.npz", arrays())
    assert load("mnist").shape == (1, 4, 4)  # the negative control: whole, it loads
    whole = (root / "mnist.npz").read_bytes()
    (root / "mnist.npz").write_bytes(whole[: len(whole) // 2])
    for _ in range(2):  # nothing was lost by the first attempt
        with pytest.raises(OSError, match="is cut short.*could not be downloaded: no route to host.*set GROWLIB_DATA"):
            load("mnist")
    assert [path.name for path in root.iterdir()] == ["mnist.npz"]


def test_a_full_disk_leaves_nothing_behind(root, online, monkeypatch):
    def full(file, **_):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match=r"could not cache .*mnist.npz.*No space left.*Free some space") as caught:
        load("mnist")
    assert caught.value.errno == errno.ENOSPC and list(root.iterdir()) == []


@pytest.mark.parametrize("limit", [100, 1500])
def test_a_disk_that_fills_up_while_writing_leaves_the_old_file(root, limit):
    store.write(root / "mnist.npz", arrays())
    before = (root / "mnist.npz").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))  # the system cuts every file here
    try:
        with pytest.raises(OSError, match="could not cache"):
            store.write(root / "mnist.npz", arrays(size=3000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in root.iterdir()] == ["mnist.npz"]
    assert (root / "mnist.npz").read_bytes() == before
    store.write(root / "mnist.npz", arrays(size=3000))  # the negative control


def test_a_disk_that_fills_up_while_downloading_is_no_network_error(root, monkeypatch):
    from torchvision import datasets

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(datasets, "MNIST", full)
    with pytest.raises(OSError, match="could not cache .*Free some space"):
        load("mnist")
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_labels": None}, "lacks train_labels"),
        ({"train_labels": np.arange(30) % 4}, "train_labels reach from 0 to 3, and there are 3 classes"),
        ({"train_labels": np.arange(30) % 3 - 1}, "reach from -1 to 1"),
        ({"test_labels": np.zeros(5, np.int64)}, r"test_labels must be int64 \(6,\)"),
        ({"train_images": np.zeros((30, 4, 4), np.uint8)}, "must be uint8 .* and are uint8"),
        ({"train_images": np.zeros((30, 1, 4, 4))}, "and are float64"),
        ({"test_images": np.zeros((6, 1, 5, 4), np.uint8)}, "only their number may differ"),
        ({"train_images": np.full((30, 2), np.nan, np.float32)}, "not finite"),
        (
            {"train_images": np.zeros((30, 8, 8, 3), np.uint8)},
            r"\(30, 8, 8, 3\) look like \(N, H, W, C\).*save train_images.transpose",
        ),
        ({"test_images": np.zeros((6, 28, 28, 1), np.uint8)}, r"test_images \(6, 28, 28, 1\) look like"),
        ({"classes": np.array("a")}, "must be a list of names"),
        ({"train_images": np.zeros((0, 1, 4, 4), np.uint8), "train_labels": np.zeros(0, np.int64)}, "int64"),
    ],
)
def test_a_file_of_another_format_is_refused_with_what_it_has(tmp_path, change, message):
    found = {key: value for key, value in (arrays() | change).items() if value is not None}
    np.savez(tmp_path / "mine.npz", **found)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "mine.npz")


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 28, 28), (8, 3, 3), (3, 4, 3), (16, 4, 4)])
def test_images_with_their_channels_first_are_read_as_they_are(tmp_path, shape):
    found = arrays() | {f"{split}_images": np.zeros((n, *shape), np.uint8) for split, n in (("train", 30), ("test", 6))}
    np.savez(tmp_path / "mine.npz", **found)
    assert load(tmp_path / "mine.npz").shape == shape


def test_a_path_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="no data set at"):
        load(str(tmp_path / "nothing.npz"))


def test_an_embedded_file_that_is_gone_says_where_it_comes_from(monkeypatch, tmp_path):
    monkeypatch.setattr(store, "PACKAGE", tmp_path / "src" / "growlib")
    with pytest.raises(FileNotFoundError, match="digits.npz: it comes with growlib"):
        load("digits")


def test_the_root_is_the_environment_the_checkout_or_the_home(monkeypatch, tmp_path):
    monkeypatch.setenv("GROWLIB_DATA", str(tmp_path))
    assert store.data_root() == tmp_path
    monkeypatch.delenv("GROWLIB_DATA")
    assert store.data_root() == store.PACKAGE.parents[1] / "data"
    monkeypatch.setattr(store, "PACKAGE", tmp_path / "site-packages" / "growlib")
    (tmp_path / "pyproject.toml").touch()  # of somebody's project that growlib is installed in
    assert store.data_root().name == "growlib" and store.data_root().parent.name == ".cache"
