from fedbatch.results.progress import Progress


def row(rounds, accuracy=float("nan"), switch=""):
    scale = {"noise_scale": 31.234, "noise_scale_unit": "examples"}
    return {"rounds": rounds, "phase": "small", "global_batch": 64, "test_accuracy": accuracy, "switch": switch} | scale


def test_plain_lines_are_few_and_a_switch_is_always_told(capsys):
    with Progress(100, 0) as progress:
        for i in range(1, 101):
            progress.show(row(i, 0.5 if i == 10 else float("nan"), "noise > batch" if i == 33 else ""))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 21 and "accuracy -" in lines[0] and "accuracy 0.500 (round 10)  noise" in lines[-1]
    assert "accuracy 0.500  noise" in next(line for line in lines if line.startswith("round    10/"))
    assert "after round 33: noise > batch" in lines
