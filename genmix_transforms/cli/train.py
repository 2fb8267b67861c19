"""``genmix train``: one command for each kind of generator."""

import typer

from genmix_transforms.cli import train_adm, train_dcgan, train_stylegan, train_textual_inversion

app = typer.Typer(
    help="Train a generator on the training part of real patches. Run again, it goes on where it stopped.",
    no_args_is_help=True,
)


@app.callback()
def kinds() -> None:
    """Train a generator on the training part of real patches. Run again, it goes on where it stopped."""


app.command("dcgan")(train_dcgan.dcgan)
app.command("stylegan")(train_stylegan.stylegan)
app.command("adm")(train_adm.adm)
app.command("adm-classifier")(train_adm.adm_classifier)
app.command("textual-inversion")(train_textual_inversion.textual_inversion)
