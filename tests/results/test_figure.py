import math

from PIL import Image

from fedbatch.results.figure import save_figure


def row(round_, phase="small", noise=50.0, **more):
    base = {"rounds": round_, "phase": phase, "cohort_size": 4, "global_batch": 64, "test_accuracy": 0.5, "switch": ""}
    scale = {"noise_scale": noise, "noise_scale_low": noise / 2, "noise_scale_high": noise * 2}
    return base | scale | {"noise_scale_unit": "examples"} | more


def test_draws_open_intervals_missing_values_and_many_switches(tmp_path):
    rows = [row(1, noise=math.nan), row(2, noise_scale_high=math.inf), row(3, noise=math.inf)]
    for i in range(4, 12):
        rows.append(row(i, "large" if i % 2 else "small", switch="why", test_accuracy=math.nan if i % 3 else 0.7))
    save_figure(rows, tmp_path / "figure.png")
    image = Image.open(tmp_path / "figure.png").convert("RGB")
    assert image.width == 1080 and len(image.getcolors(1 << 20)) > 50


def test_local_steps_are_drawn_in_clients(tmp_path):
    save_figure([row(i, noise_scale_unit="clients") for i in range(1, 5)], tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000
