"""A slider over pictures made beforehand: one piece of HTML without a kernel, a network or a library."""

import base64
import html
import io
import json
import uuid
from string import Template

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

_CSS = """
#$id{max-width:34rem;margin:1rem auto;color:inherit;line-height:1.45}
#$id svg,#$id img{display:block;width:100%;height:auto;background:none}
#$id .bar{display:flex;align-items:center;gap:.6rem;margin-top:.4rem}
#$id [hidden]{display:none}
#$id input[type=range]{flex:1;min-width:0;height:2.5rem;margin:0;accent-color:#1a6ce6;cursor:pointer}
#$id button{flex:none;width:2.5rem;height:2.5rem;padding:.65rem;border:1px solid #76808d;border-radius:50%;
background:none;color:inherit;cursor:pointer}
#$id :focus-visible{outline:2px solid #1a6ce6;outline-offset:2px}
#$id fieldset{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;margin:0 0 .4rem;padding:0;border:0}
#$id label{display:inline-flex;align-items:center;gap:.4rem;min-height:2rem;cursor:pointer}
#$id label input{margin:0;accent-color:#1a6ce6}
#$id output{display:block;min-height:1.45em;font-variant-numeric:tabular-nums}
@media print{#$id .bar{display:none}}
"""

_JS = """
(() => {
  const root = document.getElementById("$id"), beat = $beat, arms = $arms;
  const find = (selector) => root.querySelector(selector);
  const slot = find(".slot"), picture = find("[role=img]"), slider = find("input[type=range]");
  const button = find("button"), icon = find("button path"), told = find("output");
  let arm = arms[0], timer = null;
  const show = () => {
    const at = Math.min(+slider.value, arm.frames.length - 1);
    slot.innerHTML = arm.frames[at];
    if (told.textContent !== arm.labels[at]) told.textContent = arm.labels[at];
    slider.setAttribute("aria-valuetext", arm.labels[at]);
    picture.setAttribute("aria-label", arm.alts[at]);
  };
  const stop = () => {
    clearInterval(timer);
    timer = null;
    icon.setAttribute("d", "M3 1v14l11-7z");
    button.setAttribute("aria-label", "Play");
  };
  const step = () => {
    const last = +slider.value >= +slider.max;
    if (!root.isConnected || last && !beat) return stop();
    slider.value = last ? 0 : +slider.value + 1;
    show();
  };
  const play = () => {
    if (+slider.value >= +slider.max) { slider.value = 0; show(); }
    const slowly = matchMedia("(prefers-reduced-motion: reduce)").matches;
    timer = setInterval(step, slowly ? 1800 : beat || Math.max(120, Math.min(700, 12000 / arm.frames.length)));
    icon.setAttribute("d", "M3 1h4v14h-4zM10 1h4v14h-4z");
    button.setAttribute("aria-label", "Pause");
  };
  const choose = (name) => {
    arm = arms.find((one) => one.name === name);
    slider.max = arm.frames.length - 1;
    show();
  };
  button.addEventListener("click", () => (timer === null ? play() : stop()));
  slider.addEventListener("input", () => { stop(); show(); });
  root.querySelectorAll("input[type=radio]").forEach((radio) =>
    radio.addEventListener("change", () => choose(radio.value)));
  root.querySelectorAll("[hidden]").forEach((part) => { part.hidden = false; });
  stop();
  show();
})();
"""

_PAGE = """<div id="$id" class="growlib-scrubber mathjax_ignore tex2jax_ignore"><style>$css</style>$choices
<div role="img" aria-label="$alt">$picture</div>$key
<div class="bar" hidden><button type="button" aria-label="Play"><svg viewBox="0 0 16 16" aria-hidden="true"><path
fill="currentColor" d="M3 1v14l11-7z"/></svg></button><input type="range" min="0" max="$last" value="$last" step="1"
aria-label="Frame"></div><output$live>$told</output>
<script>$js</script></div>"""


class Scrubber:
    """Pictures under one slider, shown by a notebook or a page as HTML that needs nothing else.

    Without JavaScript the last frame stands still. Nothing moves until the reader presses play; where reduced motion is
    asked for, play is slow.

    Args:
        arms: name -> {"frames": HTML, "labels": texts, "alts": texts}; more than one name gives a choice between them.
        shell: HTML around the frame, which takes the place of `$frame` in its element of class "slot".
        key: HTML below the picture, for instance what the colours mean.
        beat: milliseconds a frame of a film, which begins anew after its end; left out, the frames are played once.
    """

    def __init__(
        self, arms: dict[str, dict], shell: str = '<div class="slot">$frame</div>', key: str = "", beat: int = 0
    ):
        self.arms, self.shell, self.key, self.beat = arms, shell, key, beat

    def __repr__(self) -> str:
        counts = ", ".join(f"{name or 'frames'}: {len(arm['frames'])}" for name, arm in self.arms.items())
        return f"Scrubber({counts})"

    def _repr_html_(self) -> str:
        identity = f"grow-{uuid.uuid4().hex[:12]}"  # a new one each time, so that one object can be shown twice
        first = next(iter(self.arms.values()))
        return Template(_PAGE).substitute(
            id=identity,
            css=Template(_CSS).substitute(id=identity),
            js=Template(_JS).substitute(id=identity, arms=self._data(), beat=self.beat),
            choices=self._choices(identity),
            alt=html.escape(first["alts"][-1]),
            picture=Template(self.shell).substitute(frame=first["frames"][-1]),
            key=self.key,
            last=len(first["frames"]) - 1,
            live=' aria-live="off"' * bool(self.beat),  # nobody wants to be told every frame of a film
            told=html.escape(first["labels"][-1]),
        )

    def _data(self) -> str:
        arms = [{"name": name, **arm} for name, arm in self.arms.items()]
        # "</" and "<!" could end the script; JavaScript reads the escaped forms as the same text.
        return json.dumps(arms, separators=(",", ":")).replace("</", "<\\/").replace("<!", "<\\u0021")

    def _choices(self, identity: str) -> str:
        if len(self.arms) == 1:
            return ""
        radios = "".join(
            f'<label><input type="radio" name="{identity}-arm" value="{html.escape(name)}"{" checked" * (place == 0)}>'
            f"{html.escape(name)}</label>"
            for place, name in enumerate(self.arms)
        )
        return f'<fieldset hidden aria-label="Choose">{radios}</fieldset>'


def scrubber(frames, labels, alt) -> Scrubber:
    """Put pictures under one slider with a play button, for a page that has no kernel.

    Args:
        frames: HTML or SVG texts, or matplotlib figures (drawn and closed); or name -> such a list, to choose from.
        labels: one text a frame, shown below it; or name -> such a list.
        alt: what the picture shows, for readers who can't see it: one text, or one a frame; or name -> either.

    Returns:
        An object that a notebook shows as its last expression.

    Raises:
        ValueError: there is no frame, or the numbers of frames, labels and texts differ.
    """
    if not isinstance(frames, dict):
        frames, labels, alt = {"": frames}, {"": labels}, {"": alt}
    alts = alt if isinstance(alt, dict) else dict.fromkeys(frames, alt)
    return Scrubber({name: arm(pictures, labels[name], alts[name], name) for name, pictures in frames.items()})


def arm(frames, labels, alt, name: str = "") -> dict[str, list[str]]:
    """Check and render one list of frames."""
    alts = [alt] * len(frames) if isinstance(alt, str) else list(alt)
    where = f" of {name!r}" if name else ""
    if not len(frames) or not len(frames) == len(labels) == len(alts):
        raise ValueError(
            f"a scrubber{where} needs one label and one alt text a frame: "
            f"{len(frames)} frames, {len(labels)} labels, {len(alts)} alt texts"
        )
    return {"frames": [_html(frame) for frame in frames], "labels": [str(label) for label in labels], "alts": alts}


def _html(frame) -> str:
    if isinstance(frame, str):
        return frame
    if not isinstance(frame, Figure):
        raise ValueError(f"a frame is HTML text or a matplotlib Figure, not {type(frame).__name__}")
    file = io.BytesIO()
    frame.savefig(file, format="png", dpi=160)
    plt.close(frame)
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'
