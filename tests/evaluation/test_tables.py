"""The tables by value: their layout, their numbers, and that no name breaks them."""

import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genmix_transforms.evaluation import tables
from tests.evaluation.made_results import CLASSES, make_many, make_results, make_runs


def many(**options):
    """Arms so different that their order is no chance."""
    shares = {"baseline": 0.4, "blend": 0.4, "genmix": 0.02}
    return make_many(shares, seeds=6, cases=200, **options)


def numbers(results, arm, *metrics):
    """Mean and margin in per cent, as they must stand in a cell."""
    found = [results.summary()[arm][metric] for metric in metrics]
    return [f"{100 * one.mean:.1f} ± {100 * one.margin:.1f}" for one in found]


def test_on_the_screen():
    results = many()
    lines = results.table().splitlines()
    assert lines[0].split() == [*CLASSES]
    assert lines[1].split() == ["arm", "Acc", "F1", "Bal", "Acc", "AUC", "sens/spec", "sens/spec"]
    overall = numbers(results, "baseline", "accuracy", "macro_f1", "balanced_accuracy", "auc")
    by_class = [
        "/".join(
            f"{100 * results.summary()['baseline'][f'{kind}_{name}'].mean:.1f}"
            for kind in ("sensitivity", "specificity")
        )
        for name in CLASSES
    ]
    assert re.split(r"\s{2,}", lines[2]) == ["baseline", *overall, *by_class]
    # Right edges under right edges.
    assert {line.rfind("/") for line in lines[1:5]} == {lines[1].rfind("/")} or len(lines[2]) == len(lines[1])
    assert lines[5] == ""
    assert lines[6] == "Difference in F1 from the baseline, points:"
    assert lines[7].split() == ["arm", "less", "difference", "95", "%", "interval", "p", "p", "(Holm)", "detectable"]
    one = results.differences()["baseline"][1]
    assert re.split(r"\s{2,}", lines[9]) == [
        "genmix",
        "baseline",
        f"+{100 * one.difference:.1f}",
        f"+{100 * one.low:.1f} to +{100 * one.high:.1f}",
        "<0.001",
        "<0.001" if one.p < 0.001 else f"{one.p:.3f}",
        f"{100 * one.detectable:.1f}",
    ]
    assert "Difference in F1 from the arm that blends in the same bank, points:" in lines
    assert max(map(len, lines)) <= 120


def test_marks_where_the_f1_differs():
    results = many()
    f1 = {line.split()[0]: re.split(r"\s{2,}", line)[2] for line in results.table().splitlines()[2:5]}
    assert f1["genmix"] == numbers(results, "genmix", "macro_f1")[0] + "*+"
    assert f1["blend"] == numbers(results, "blend", "macro_f1")[0]
    text = " ".join(results.table().split())
    assert "*: F1 differs from that of the baseline (p < 0.05 after Holm's correction)." in text
    assert "+: F1 differs from that of the arm that blends in the same bank" in text


def test_what_the_numbers_are():
    text = " ".join(many(groups=(tuple(number // 4 for number in range(200)),)).table().split())
    assert "Per cent. Mean over 6 seeds, ± half of its 95 % interval over seeds and test cases." in text
    assert "200 test images in 50 groups." in text
    folds = make_results()
    assert "6 test images, pooled over 2 folds." in folds.to_markdown()
    assert "groups" not in folds.to_markdown()
    alone = make_results([("baseline", 0)]).to_markdown()
    assert (
        "1 seed, ± half of the 95 % interval over test cases alone: it compares trained classifiers, not methods"
        in alone
    )


def test_the_smallest_difference_that_would_have_been_detected():
    results = many()
    low, high = (f"{100 * value:.1f}" for value in sorted(one.detectable for one in results.differences()["baseline"]))
    blend = f"{100 * results.differences()['blend'][0].detectable:.1f}"
    expected = (
        "Smallest difference in F1 that would have been detected (80 % power, p &lt; 0.05 uncorrected), in points: "
        f"{low} to {high} against the baseline; {blend} against the arm that blends in the same bank."
    )
    assert expected in results.to_markdown().splitlines()
    # Arms that never differ detect nothing.
    same = make_results(runs=[run for arm in ("baseline", "mixup") for run in make_runs(arm, 0, ([0] * 4, [1, 0]))])
    assert "Smallest difference" not in same.table()
    assert same.to_markdown().count("| mixup | baseline | 0.0 | 0.0 to 0.0 | 1.000 | 1.000 | - |") == 1


def test_a_missing_arm_stays_empty_with_its_reason():
    results = many(
        missing={"genmix:ldm": "its weights cannot be had"}, order=("baseline", "genmix:ldm", "blend", "genmix")
    )
    lines = results.table().splitlines()
    assert lines[3].split() == ["genmix:ldm", *["-"] * 6]
    assert "genmix:ldm is empty: its weights cannot be had." in lines
    assert "| genmix:ldm | - | - | - | - | - | - |" in results.to_markdown().splitlines()
    assert r"genmix:ldm & - & - & - & - & - & - & - & - \\" in results.to_latex().splitlines()
    assert all(one.arm != "genmix:ldm" for family in results.differences().values() for one in family)


def test_a_class_the_test_set_lacks_has_a_dash():
    results = make_results(classes=("cyst", "metastasis", "polyp"))
    assert results.table().splitlines()[2].split()[-1] == "-/100.0"
    assert results.to_dict()["summary"]["genmix"]["sensitivity_polyp"]["mean"] is None


def test_tuned_values_have_a_column():
    knobs = {"baseline": [(None, None)], "mixup": [(0.2, 0.1)], "blend": [(0.1, 0.2), (0.3, 0.5)]}
    runs = [
        run
        for arm, seeds in knobs.items()
        for seed, values in enumerate(seeds)
        for run in make_runs(arm, seed, ([0] * 4, [1, 1]), knobs=values)
    ]
    rows = [line.split("|")[1:3] for line in make_results(runs=runs).to_markdown().splitlines()[:5]]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["arm", "tuned"],
        ["---", "---:"],
        ["baseline", "-"],
        ["mixup", "0.1, 0.2"],
        ["blend", "0.1 to 0.5"],
    ]


def test_many_classes_go_on_in_further_blocks():
    classes = tuple(f"a class of number {number}" for number in range(9))
    lines = make_results(classes=classes).table().splitlines()
    assert max(map(len, lines)) <= 120
    assert sum(line.startswith("baseline  ") for line in lines) == 3
    assert sum(line.count("a class of number") for line in lines) == 9


def test_in_markdown():
    results = make_results(
        classes=("cyst", "meta|stasis"),
        data={"name": "liver", "shape": [1, 16, 16], "counts": {"train": {"cyst": 3}, "test": {"cyst": 4}}},
        bank={"counts": {"cyst": 5}, "trained_on": "this training set"},
        banks={"adm": {"counts": {"cyst": 7, "polyp": 1}, "trained_on": "another set"}},
        protocol={"steps": 100},
        versions={"torch": "2"},
        warnings=("the bank is strange",),
    )
    lines = results.to_markdown().splitlines()
    assert lines[0] == r"| arm | Acc | F1 | cyst sens/spec | meta\|stasis sens/spec | Bal Acc | AUC |"
    assert lines[1] == "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    cells = lines[2].strip("| ").split(" | ")
    assert cells[0] == "baseline"
    assert cells[1:3] == numbers(results, "baseline", "accuracy", "macro_f1")
    assert cells[3] == " / ".join(numbers(results, "baseline", "sensitivity_cyst", "specificity_cyst"))
    assert cells[5:] == [*numbers(results, "baseline", "balanced_accuracy"), "-"]
    assert "Data: liver, 1 x 16 x 16; train cyst 3; test cyst 4." in lines
    assert "Bank: cyst 5; its generator was trained on: this training set." in lines
    assert "Bank adm: cyst 7, polyp 1; its generator was trained on: another set." in lines
    assert "Protocol: steps 100." in lines
    assert "Made with torch 2." in lines
    assert "**Note:** the bank is strange." in lines
    assert "Note: the bank is strange." in results.table().splitlines()


def test_nothing_to_show():
    results = make_results([])
    assert results.table().splitlines()[1].split()[:2] == ["arm", "Acc"]
    assert tables.runs_csv(results) == "arm,fold,seed,steps,best_step,knob,seconds\n"


# LaTeX


def test_the_layout_of_the_papers_table():
    results = many()
    lines = results.to_latex().splitlines()
    start = lines.index(r"\begin{tabular}{lrrrrrrrr}")
    assert lines[start + 1] == r"\toprule"
    assert lines[start + 2] == r" &  &  & \multicolumn{2}{c}{cyst} & \multicolumn{2}{c}{metastasis} &  &  \\"
    assert lines[start + 3] == r"\cmidrule(lr){4-5} \cmidrule(lr){6-7}"
    assert lines[start + 4] == r"arm & Acc & F1 & Sens. & Spec. & Sens. & Spec. & Bal Acc & AUC \\"
    assert lines[start + 5] == r"\midrule"
    metrics = ["accuracy", "macro_f1"]
    metrics += [f"{kind}_{name}" for name in CLASSES for kind in ("sensitivity", "specificity")]
    metrics += ["balanced_accuracy", "auc"]
    cells = [
        re.sub(r" ± ([\d.]+)", r" {\\scriptsize $\\pm$ \1}", cell) for cell in numbers(results, "baseline", *metrics)
    ]
    assert lines[start + 6] == " & ".join(["baseline", *cells]) + r" \\"
    assert "{*}+" in lines[start + 8]
    one = results.differences()["baseline"][0]
    row = next(line for line in lines if line.startswith("blend & baseline &"))
    sign = "$-$" if one.low < 0 else "+"
    assert f"{sign}{abs(100 * one.low):.1f} to " in row


def test_the_latex_of_a_table_with_tuned_values_keeps_its_rules_under_the_classes():
    runs = make_runs("mixup", 0, ([0] * 4, [1, 1]), knobs=(0.1, 0.2))
    assert r"\cmidrule(lr){5-6} \cmidrule(lr){7-8}" in make_results(runs=runs).to_latex()


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("50% & $5 #1 a_b {x}", r"50\% \& \$5 \#1 a\_b \{x\}"),
        ("~^\\", r"\textasciitilde{}\textasciicircum{}\textbackslash{}"),
        ("<a|b>", r"\textless{}a\textbar{}b\textgreater{}"),
        ('a "b"', "a ''b''"),
        ("[a]*", "{[}a{]}{*}"),
        ("a--b---c", "a-{}-b-{}--c"),
        ("p ± q", r"p $\pm$ q"),
        ("two\nlines", "two lines"),
        ("Zyste größer", "Zyste größer"),
        ("genmix-union:dcgan", "genmix-union:dcgan"),
    ],
)
def test_escaped(text, latex):
    assert tables.escape_latex(text) == latex


PLAIN = re.compile(r"\\(?:[&%$#_{}]|text[a-z]+\{\})|\{[\[\]*]?\}|\$\\pm\$|''|[^\\&%$#_{}~^<>|\"\n\[\]*±]")


@given(st.text('\\&%$#_{}~^<>|"[]*-± ab\nß'))
def test_no_text_leaves_a_character_that_latex_would_act_on(text):
    assert re.fullmatch(f"(?:{PLAIN.pattern})*", tables.escape_latex(text))


@given(st.lists(st.text('\\&%_{}[]*|"<- a1\n', min_size=1), min_size=2, max_size=2, unique=True))
def test_class_names_do_not_break_a_table(classes):
    results = make_results([("baseline", 0)], classes=tuple(classes))
    text = results.to_latex()
    for row in [line for line in text.splitlines() if line.endswith(r"\\")]:
        columns = len(re.findall(r"(?<!\\)&", row)) + 1 + len(re.findall(r"\\multicolumn\{2\}", row))
        assert columns == 9
    bare = re.sub(r"\\[\\{}]", "", text)
    assert bare.count("{") == bare.count("}")
    for line in results.to_markdown().splitlines()[:3]:
        assert len(re.findall(r"(?<!\\)\|", re.sub(r"\\\\", "", line))) == 8


def test_environments_are_closed():
    text = many().to_latex()
    assert text.startswith("% Needs \\usepackage{booktabs}.\n")
    for name in ("table*", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 3
    for rule in ("toprule", "midrule", "bottomrule"):
        assert text.count(rf"\{rule}" + "\n") == 3


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX on this machine")
@pytest.mark.parametrize("classes", [("cyst", "metastasis"), (r"50% & $5 #1 \x {y}_", "~^<|>[*] größer --")])
def test_latex_takes_it(tmp_path, classes):
    """With the one package that its first line names."""
    results = make_many({"baseline": 0.3, "genmix:a_b": 0.2}, classes=classes, missing={"genmix:ldm": "100% <gone>"})
    document = r"\documentclass{article}\usepackage{booktabs}\begin{document}%s\end{document}"
    (tmp_path / "table.tex").write_text(document % f"\n{results.to_latex()}\n", encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "table.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_a_minus_is_a_minus_and_a_hyphen_a_hyphen():
    assert tables._latex_cell("-2.1 to -0.3") == "$-$2.1 to $-$0.3"
    assert tables._latex_cell("genmix-2") == "genmix-2"
    assert tables._latex_cell("63.9 ± 6.2*") == r"63.9 {\scriptsize $\pm$ 6.2}{*}"
    assert tables._points(-0.0004) == "0.0"
    assert tables._points(0.0125) == "+1.2"
