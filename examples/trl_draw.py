"""The figure and the table of a record that trl_before_after.py wrote: `python trl_draw.py RECORD.json FIGURE.png`.

Lines are means over seeds, bands their 95% intervals (Student t); each seed has its own demonstrations, network and dice.
"""

import sys
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from matplotlib.figure import Figure

from mightnt.audits.summary import over_seeds
from mightnt.files import read_json

here = Path(__file__).resolve().parents[1] / "results" / "trl.json"
path, picture = (
    Path(word) for word in (sys.argv[1:] if sys.argv[-1].endswith(".png") else (here, f"{mkdtemp()}/trl.png"))
)
record = read_json(path)
config, runs = record["provenance"]["config"], {arm: np.array(found) for arm, found in record["runs"].items()}
AXES = (
    "KL to the demonstrator, nats a turn",
    "share of replies that praise (the proxy reward)",
    "the same after wrong answers",
)
DRAWN = {"GRPO": "#d1480f", "GRPO, dearer": "#c98a00", "protected": "#0a6ebd"}
figure = Figure((9, 3), layout="constrained")
panels = figure.subplots(1, 2)
table = [f"| after {config['steps']} steps, {config['seeds']} seeds | {' | '.join(AXES)} |", "|---|---|---|---|"]
for arm, found in runs.items():  # (seeds, steps, measures)
    spreads = [[over_seeds(list(found[:, step, measure])) for step in range(found.shape[1])] for measure in range(3)]
    table.append(f"| {arm} | {' | '.join(str(along[-1]) for along in spreads)} |")
    for axes, name, along in zip(panels, AXES, spreads, strict=False) if arm in DRAWN else ():
        color = DRAWN[arm]
        axes.plot([at.mean for at in along], color=color, lw=2, label=f"{arm} (beta {config['arms'][arm]['beta']:g})")
        if len(found) > 1:
            axes.fill_between(
                range(len(along)), [at.low for at in along], [at.high for at in along], color=color, alpha=0.2
            )
        axes.set(title=name, xlabel="optimizer steps", ylim=(0, None))
        axes.title.set_fontsize(10)
panels[0].legend(frameon=False, fontsize=9)
figure.savefig(picture, dpi=110)
print("\n".join(table))
assert all(np.isfinite(found).all() for found in runs.values()), "a run ended in infinity"
