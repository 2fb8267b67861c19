"""The arms: every image that comes out is told by its pixels, so its label can be checked one by one."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import v2

from genmix_transforms.bank import SyntheticBank
from genmix_transforms.errors import InputError
from genmix_transforms.evaluation.arms import (
    ARMS,
    DEFAULT_ARMS,
    KINDS,
    TUNING_SEED,
    Setting,
    arm_kind,
    arm_name,
    build_arm,
    check_arms,
    choose,
    expand_arms,
    given_options,
    order_arms,
    own_protocol,
    split_arm_name,
    trial_values,
    with_value,
)
from genmix_transforms.evaluation.normalisation import Normalisation
from genmix_transforms.evaluation.protocol import GRID, Protocol
from genmix_transforms.transforms import GenMix

CLASSES = ("cyst", "hemangioma", "metastasis")


def numbered_bank(counts=(10, 20, 70)):
    """Image number i, in the bank's order, has the pixel value 100 + i everywhere."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    pixels = (100 + torch.arange(len(labels))).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    return SyntheticBank(pixels.clone(), labels, classes=CLASSES[: len(counts)])


def setting(bank=None, *, mean=0.4, std=0.2, real=None, **options):
    return Setting(
        protocol=Protocol(**options),
        class_counts={"cyst": 6, "hemangioma": 1, "metastasis": 3},
        normalisation=Normalisation(mean=(mean,), std=(std,)),
        banks={} if bank is None else {"": bank},
        real=real,
    )


def real_batch(count):
    """Image number i has the value -100 - i, which no synthetic one has; the classes come in turn."""
    images = (-100.0 - torch.arange(count)).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).clone()
    return images, torch.arange(count) % 3


def test_the_table_has_the_papers_order():
    assert DEFAULT_ARMS == ("baseline", "mixup", "blend", "genmix")
    assert [name for name in ARMS if name in DEFAULT_ARMS] == list(DEFAULT_ARMS)
    assert [name for name in ARMS if arm_kind(name).needs_bank] == [
        *("blend", "blend-mixup", "pretrain", "genmix", "genmix-union", "genmix-first")
    ]
    assert [name for name in ARMS if arm_kind(name).needs_real] == [
        *("balanced-mixup", "repeat", "pretrain-repeat", "genmix-real")
    ]


def test_options_and_knobs_are_fields_of_the_protocol():
    fields = {field.name for field in dataclasses.fields(Protocol)}
    assert {option for kind in KINDS.values() for option in kind.options} <= fields
    for name, kind in KINDS.items():
        assert kind.knob in fields
        # A knob that changes this arm only is one of its options; the baseline has none of its own.
        assert kind.knob in (*kind.options, "weight_decay"), name
        assert len(kind.grid) == len(set(kind.grid)) == GRID
        assert list(kind.grid) == sorted(kind.grid)
        for value in kind.grid:
            Protocol(**{kind.knob: value})


@pytest.mark.parametrize(("kind", "bank", "name"), [("genmix", "", "genmix"), ("genmix", "adm", "genmix:adm")])
def test_names(kind, bank, name):
    assert arm_name(kind, bank) == name
    assert split_arm_name(name) == (kind, bank)
    assert arm_kind(name) is KINDS["genmix"]


def test_a_kind_stands_for_one_arm_with_each_bank():
    plain = ("baseline", "blend", "genmix-union")
    assert expand_arms(plain, []) == plain
    assert expand_arms(plain, [""]) == plain
    assert expand_arms(plain, ["a", "b"]) == ("baseline", "blend:a", "blend:b", "genmix-union:a", "genmix-union:b")
    assert expand_arms(["genmix:b", "repeat"], ["a", "b"]) == ("genmix:b", "repeat")
    with pytest.raises(InputError, match=r"'genmix:c': no bank 'c'; there are a, b \(--bank c=FOLDER\)"):
        expand_arms(["genmix:c"], ["a", "b"])
    with pytest.raises(InputError, match="'genmix:c': no bank 'c'; there are none with a name"):
        expand_arms(["genmix:c"], [""])
    with pytest.raises(InputError, match="'mixup:a': 'mixup' draws from no bank"):
        expand_arms(["mixup:a"], ["a"])


@pytest.mark.parametrize("name", ARMS)
def test_what_every_arm_returns(name):
    images, labels = build_arm(name, setting(numbered_bank(), real=numbered_bank((3, 3, 3))))(*real_batch(7))[:2]
    assert images.shape == (7, 1, 4, 4)
    assert images.dtype == torch.float32
    assert labels.shape == (7, 3)
    assert labels.dtype == torch.float32
    assert torch.allclose(labels.sum(dim=1), torch.ones(7))


def test_repeat_is_blend_with_the_real_images_for_its_bank():
    bank = numbered_bank((3, 3, 3))
    torch.manual_seed(3)
    repeated = build_arm("repeat", setting(real=bank, repeat_share=0.4))(*real_batch(50))
    torch.manual_seed(3)
    blended = build_arm("blend", setting(bank, blend_share=0.4))(*real_batch(50))
    assert all(torch.equal(one, other) for one, other in zip(repeated[:2], blended[:2], strict=True))


def test_genmix_real_is_genmix_with_the_real_images_for_its_bank():
    bank = numbered_bank((3, 3, 3))
    torch.manual_seed(3)
    # The share of real partners is genmix's own: here every partner comes from the bank of real images.
    control = build_arm("genmix-real", setting(real=bank, alpha=0.7, real_partner=0.5))(*real_batch(50))
    torch.manual_seed(3)
    mixed = build_arm("genmix", setting(bank, alpha=0.7))(*real_batch(50))
    assert all(torch.equal(one, other) for one, other in zip(control[:2], mixed[:2], strict=True))


def test_genmix_union_is_the_second_reading():
    bank = numbered_bank()
    torch.manual_seed(3)
    union = build_arm("genmix-union", setting(bank))(*real_batch(50))
    torch.manual_seed(3)
    mixed = build_arm("genmix", setting(bank, real_partner=0.5))(*real_batch(50))
    assert all(torch.equal(one, other) for one, other in zip(union[:2], mixed[:2], strict=True))


# Options that an arm has for itself


@settings(max_examples=50)
@given(data=st.data())
def test_options_by_name_are_the_protocols(data):
    """Any option of any arm, written as the protocol writes it, is that option of its own protocol and of no other."""
    name = data.draw(st.sampled_from([kind for kind in ARMS if KINDS[kind].options]))
    chosen = data.draw(st.lists(st.sampled_from(KINDS[name].options), unique=True, min_size=1))
    values = {
        "mixup_alpha": 0.35, "augmix_severity": 4, "classical_strength": 0.5, "repeat_share": 0.15, "alpha": 0.7,
        "blend_share": 0.25, "synthetic_weight": 0.8, "aux_norm": True, "balance": "equal", "keep": 0.5, "p": 0.5,
        "keep_by": "random", "pretrain_part": 0.3, "mixing_part": 0.3, "pairing": "same", "real_partner": 0.4,
        "pool_weights": "small.safetensors",
    }  # fmt: skip
    if "keep_by" in chosen and "keep" not in chosen:
        chosen.append("keep")
    written = {option.name: option.write(values[option.name]) for option in Protocol.options() if option.name in chosen}
    hyphens = data.draw(st.booleans())
    parts = (f"@{option.replace('_', '-') if hyphens else option}={text}" for option, text in written.items())
    arm = name + "".join(parts)
    assert given_options(arm) == {option: values[option] for option in written}
    own = own_protocol(arm, Protocol(steps=7, weight_decay=0.5))
    # A classifier that starts from a pool's weights has them for its own.
    expected = {"weights" if name == "pool_weights" else name: value for name, value in given_options(arm).items()}
    assert own == dataclasses.replace(Protocol(steps=7, weight_decay=0.5), **expected)
    assert check_arms([arm]) == (arm,)


def test_a_value_alone_is_the_arms_own_option():
    for name, kind in KINDS.items():
        if kind.knob in kind.options:
            assert given_options(f"{name}@{kind.grid[1]:g}") == {kind.knob: kind.grid[1]}
    with pytest.raises(InputError, match="the arm 'baseline@0.1': 'baseline' has no option of its own"):
        given_options("baseline@0.1")


def test_options_of_other_arms_alone_do_not_reach_an_arm():
    own = own_protocol("genmix", Protocol(blend_share=0.1, keep=0.5, pairing="same", aux_norm=True, steps=3))
    assert own == Protocol(keep=0.5, pairing="same", steps=3)


def test_each_pairing_beside_the_others():
    pairings = ("any", "balanced", "same", "other", "inverse")
    assert expand_arms(["genmix@pairing=all"], []) == tuple(f"genmix@pairing={pairing}" for pairing in pairings)
    assert expand_arms(["genmix", "genmix:b@0.5@pairing=all"], ["a", "b"]) == (
        "genmix:a",
        "genmix:b",
        *(f"genmix:b@0.5@pairing={pairing}" for pairing in pairings),
    )
    # What is asked for by name is not there a second time.
    order, _ = order_arms(["genmix", "genmix@pairing=all"], [""], {})
    assert order == ("genmix", *(f"genmix@pairing={pairing}" for pairing in pairings[1:]))
    order, _ = order_arms(["genmix", "genmix@pairing=all"], [""], {}, Protocol(pairing="same"))
    assert "genmix@pairing=any" in order
    assert "genmix@pairing=same" not in order
    assert expand_arms(["blend@aux_norm=all@keep=0.5@keep_by=all"], []) == tuple(
        f"blend@aux_norm={aux}@keep=0.5@keep_by={by}" for aux in ("false", "true") for by in ("confidence", "random")
    )
    with pytest.raises(InputError, match="'blend@all': blend_share is a number; all stands for each word"):
        expand_arms(["blend@all"], [])


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        (["blend@alpha=1"], "the arm 'blend@alpha=1': no such option: alpha; there are blend_share, synthetic_weight"),
        (["genmix@pairng=same"], "no such option: pairng; did you mean pairing"),
        (["blend@1.5"], "the arm 'blend@1.5': blend_share must be above 0 and at most 1, got 1.5"),
        (["blend@0"], "the arm 'blend@0': blend_share must be above 0"),
        (["blend@half"], "the arm 'blend@half': blend_share: expected a number, got 'half'"),
        (["genmix@pairing=sane"], "the arm 'genmix@pairing=sane': pairing must be one of any, balanced"),
        (["augmix@2.5"], "the arm 'augmix@2.5': augmix_severity: expected a whole number"),
        (["blend@0.2@blend-share=0.3"], "blend_share is given twice"),
        (["blend@keep_by=random"], "keep_by says what keep drops; give keep too, below 1"),
        (["pretrain@1"], "pretrain_part must be above 0 and below 1, got 1"),
        (["genmix@synthetic_weight=0.8"], "has no option synthetic_weight: where an image is a mixture, lambda weighs"),
        (["blend-mixup@aux_norm=true"], "has no option aux_norm: it tells synthetic images from real ones"),
        (["genmix@balance=equal"], "has no option balance: GenMix draws classes by its pairing"),
        (["mixup@keep=0.5"], "the arm 'mixup@keep=0.5': no such option: keep"),
        (["blend", "blend@0.5"], "every arm once: 'blend' and 'blend@0.5' are the same arm; leave one out"),
        (["blend@0.50", "blend@blend_share=0.5"], "'blend@0.50' and 'blend@blend_share=0.5' are the same arm"),
        (["genmix", "genmix@pairing=any"], "'genmix' and 'genmix@pairing=any' are the same arm"),
    ],
)
def test_options_that_cannot_be(arms, message):
    with pytest.raises(InputError, match=message):
        check_arms(arms)


def test_the_same_arm_depends_on_the_protocol():
    assert check_arms(["blend", "blend@0.5"], Protocol(blend_share=0.2)) == ("blend", "blend@0.5")
    # One is tuned, the other is not.
    assert check_arms(["blend", "blend@0.5"], Protocol(tune=3)) == ("blend", "blend@0.5")


def test_what_is_tuned_where_an_arms_own_option_is_given():
    assert trial_values("blend@0.25", 3) == trial_values("baseline", 3)
    assert trial_values("blend@keep=0.5", 3) == trial_values("blend", 3)
    own = own_protocol("blend@0.25", with_value(Protocol(tune=3), "blend@0.25", 0.1))
    assert (own.blend_share, own.weight_decay, own.tune) == (0.25, 0.1, 0)


def test_an_arm_draws_from_the_bank_of_its_name():
    dark, bright = (
        SyntheticBank(torch.full((3, 1, 4, 4), value, dtype=torch.uint8), torch.arange(3), classes=CLASSES)
        for value in (0, 255)
    )
    both = dataclasses.replace(setting(blend_share=1, mean=0.0, std=1.0), banks={"dark": dark, "bright": bright})
    assert build_arm("blend:dark", both)(*real_batch(5))[0].unique().tolist() == [0.0]
    assert build_arm("blend:bright", both)(*real_batch(5))[0].unique().tolist() == [1.0]
    with pytest.raises(InputError, match="'blend' needs a bank"):
        build_arm("blend", both)


def test_the_controls_of_real_images_keep_the_labels():
    values = torch.rand(6, 1, 16, 16)
    for name in ("augmix", "classical"):
        images, soft = build_arm(name, setting())(values, torch.arange(6) % 3)[:2]
        assert not torch.equal(images, values)
        assert torch.equal(soft, torch.eye(3)[torch.arange(6) % 3])


@pytest.mark.parametrize("name", ["repeat", "genmix-real"])
def test_a_control_without_the_training_set(name):
    with pytest.raises(InputError, match=f"'{name}' draws from the training set: the setting has none"):
        build_arm(name, setting())


def test_baseline_changes_nothing_and_draws_nothing():
    images, labels = real_batch(6)
    before = torch.random.get_rng_state()
    same, soft = build_arm("baseline", setting())(images, labels)[:2]
    assert same is images
    assert torch.equal(soft, torch.eye(3)[labels])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_mixup_is_torchvisions():
    images, labels = real_batch(6)
    arm, expected = build_arm("mixup", setting(mixup_alpha=0.7)), v2.MixUp(alpha=0.7, num_classes=3)
    torch.manual_seed(3)
    ours = arm(images, labels)
    torch.manual_seed(3)
    theirs = expected(images, labels)
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])
    assert not torch.equal(ours[0], images)


def test_genmix_is_genmix_with_the_protocols_options_and_the_datas_normalisation():
    images, labels = real_batch(30)
    bank = numbered_bank()
    options = {"alpha": 0.8, "pairing": "inverse", "real_partner": 0.3, "p": 0.9}
    arm = build_arm("genmix", setting(bank, **options))
    expected = GenMix(bank, mean=(0.4,), std=(0.2,), class_counts=[6, 1, 3], check_range=False, **options)
    torch.manual_seed(3)
    ours = arm(images, labels)
    torch.manual_seed(3)
    theirs = expected(images, labels)
    assert torch.equal(ours[0], theirs[0])
    assert torch.equal(ours[1], theirs[1])


def test_genmix_takes_a_pairing_matrix():
    swap = [[0, 0, 1], [0, 1, 0], [1, 0, 0]]
    # With a huge alpha, lambda is 1: the partner alone is left.
    arm = build_arm("genmix", setting(numbered_bank(), alpha=1e9, pairing=swap))
    _, labels = arm(*real_batch(9))[:2]
    assert torch.allclose(labels, torch.eye(3)[[2, 1, 0] * 3], atol=1e-4)


@settings(max_examples=40)
@given(count=st.integers(0, 40), share=st.floats(0.01, 1), seed=st.integers(0, 2**31))
def test_blend_gives_whole_images_with_their_own_labels(count, share, seed):
    bank = numbered_bank()
    images, labels = real_batch(count)
    torch.manual_seed(seed)
    mixed, soft = build_arm("blend", setting(bank, blend_share=share))(images, labels)[:2]
    for place in range(count):
        value = mixed[place].flatten()
        assert (value == value[0]).all()
        if value[0] <= -100:
            assert torch.equal(mixed[place], images[place])
            assert soft[place].tolist() == torch.eye(3)[labels[place]].tolist()
        else:
            number = round(float(value[0] * 0.2 + 0.4) * 255) - 100
            assert value[0].item() == pytest.approx(((100 + number) / 255 - 0.4) / 0.2, abs=1e-5)
            assert soft[place].tolist() == torch.eye(3)[bank.labels[number]].tolist()


def test_blend_has_the_share_it_was_given_and_the_banks_proportions():
    bank = numbered_bank()
    torch.manual_seed(0)
    images, soft = build_arm("blend", setting(bank, blend_share=0.3))(*real_batch(20_000))[:2]
    synthetic = images[:, 0, 0, 0] > -100
    # Four standard deviations of the binomial counts.
    assert synthetic.float().mean().item() == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 20_000) ** 0.5)
    count = int(synthetic.sum())
    for found, expected in zip(soft[synthetic].mean(dim=0).tolist(), (0.1, 0.2, 0.7), strict=True):
        assert found == pytest.approx(expected, abs=4 * (expected * (1 - expected) / count) ** 0.5)


def test_a_blend_of_1_is_all_synthetic():
    images = build_arm("blend", setting(numbered_bank(), blend_share=1))(*real_batch(200)).images
    assert (images > -100).all()


def test_blend_with_soft_labels_in_the_bank():
    bank = SyntheticBank(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([[0.5, 0.5, 0]] * 2), classes=CLASSES)
    _, soft = build_arm("blend", setting(bank, blend_share=1))(*real_batch(3))[:2]
    assert soft.tolist() == [[0.5, 0.5, 0.0]] * 3


def test_genmix_with_soft_labels_in_the_bank():
    rows = torch.tensor([[0.5, 0.3, 0.2]] * 2)
    bank = SyntheticBank(torch.full((2, 1, 4, 4), 255, dtype=torch.uint8), rows, classes=CLASSES)
    images, labels = real_batch(50)
    soft = build_arm("genmix", setting(bank))(images, labels).labels
    lam = (soft - torch.eye(3)[labels])[range(50), labels] / (rows[0] - torch.eye(3))[labels, labels]
    assert torch.allclose(soft, torch.lerp(torch.eye(3)[labels], rows[0].expand(50, 3), lam[:, None]), atol=1e-5)
    assert lam.std() > 0


def test_no_such_arm():
    with pytest.raises(InputError, match="no arm 'cutmix'; there are baseline, mixup, .*, augmix, .*, genmix-union"):
        build_arm("cutmix", setting())


@pytest.mark.parametrize("name", ["blend", "genmix"])
def test_an_arm_without_its_bank(name):
    with pytest.raises(InputError, match=f"the arm '{name}' needs a bank of synthetic images"):
        build_arm(name, setting())


@pytest.mark.parametrize(
    ("name", "message"), [("blend", "'blend': the bank is empty"), ("genmix", "'genmix': the bank is empty")]
)
def test_an_empty_bank(name, message):
    bank = SyntheticBank(torch.zeros(0, 1, 4, 4, dtype=torch.uint8), torch.zeros(0).long(), classes=CLASSES)
    with pytest.raises(InputError, match=message):
        build_arm(name, setting(bank))


def test_a_class_that_the_pairing_needs_and_the_bank_lacks():
    bank = numbered_bank((5, 5)).with_classes(CLASSES)
    build_arm("genmix", setting(bank, pairing="any"))
    with pytest.raises(InputError, match="no images of it"):
        build_arm("genmix", setting(bank, pairing="same"))


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ("genmix", r"arms must be a list of names, got the text 'genmix'; give \('genmix',\)"),
        ((), "no arms to compare"),
        (("baseline", "genmixx"), "no arm 'genmixx'; there are baseline, mixup, .*genmix"),
        (("baseline", "mixup", "baseline"), "every arm once, got baseline, mixup, baseline"),
    ],
)
def test_arms_that_are_none(arms, message):
    with pytest.raises(InputError, match=message):
        check_arms(arms)


def test_arms_may_come_from_anything():
    assert check_arms(name for name in ("genmix", "baseline")) == ("genmix", "baseline")


# Tuning: the same number of values for every arm, and the best of them


@pytest.mark.parametrize("arm", [*ARMS, "genmix:dcgan"])
@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_every_arm_tries_as_many_values(arm, count):
    values = trial_values(arm, count)
    grid = KINDS[arm.partition(":")[0]].grid
    assert len(set(values)) == count
    assert set(values) <= set(grid)
    assert (values[0], values[-1]) == (grid[0], grid[-1])
    assert list(values) == sorted(values)


def test_blends_share_goes_from_a_tenth_to_a_half():
    assert trial_values("blend", GRID) == (0.1, 0.2, 0.3, 0.4, 0.5)
    assert trial_values("repeat", GRID) == (0.1, 0.2, 0.3, 0.4, 0.5)


@pytest.mark.parametrize("arm", ARMS)
def test_a_value_changes_the_arms_option_and_nothing_else(arm):
    protocol = Protocol(tune=3, steps=7)
    assert with_value(protocol, arm, None) == Protocol(steps=7)
    for value in KINDS[arm].grid:
        found = with_value(protocol, arm, value)
        assert found == Protocol(steps=7, **{KINDS[arm].knob: value})
        assert type(getattr(found, KINDS[arm].knob)) is type(getattr(protocol, KINDS[arm].knob))


@given(st.dictionaries(st.floats(0, 1), st.floats(0, 1), min_size=1))
def test_the_best_is_chosen(trials):
    best = choose(trials)
    assert trials[best] == max(trials.values())
    assert all(value >= best for value, score in trials.items() if score == trials[best])


def test_the_trials_seed_is_no_runs():
    assert TUNING_SEED > 10**9
