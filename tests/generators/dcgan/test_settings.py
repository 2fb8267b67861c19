"""The settings of a DCGAN: the presets are the papers'."""

from genmix_transforms.generators.dcgan.settings import DCGANSettings


def test_the_presets_are_the_papers() -> None:
    paper = DCGANSettings.of({"preset": "paper"}, name="test")
    assert (paper.steps, paper.batch_size, paper.learning_rate) == (70_000, 8, 0.001)
    radford = DCGANSettings.of({}, name="test")
    assert (radford.preset, radford.learning_rate, radford.betas) == ("dcgan", 0.0002, (0.5, 0.999))
