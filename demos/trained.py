"""A model that another demo trained, from the folder it left."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from demos import autoencoder, cvae, iwae, vae
from demos.common import load_images
from tinygen.data import Images
from tinygen.io import load

DEMOS: dict[str, ModuleType] = {"vae": vae, "iwae": iwae, "cvae": cvae, "autoencoder": autoencoder}


class Trained(NamedTuple):
    """model: with `code`, images (n, pixels) to codes (n, latent), and `decode`, back to mean images."""

    model: Any
    images: Images
    settings: dict


def load_trained(folder: Path, *, only: tuple[str, ...] = tuple(DEMOS)) -> Trained:
    """The model in `folder`, of one of the demos `only`. Exits with a message if there is none such."""
    path = folder / "checkpoint.safetensors"
    try:
        state = load(path)
        settings, parts = state["settings"], state["parts"]
        demo = DEMOS[settings["demo"]]
        images = load_images(settings["data"])
        model = demo.rebuild(settings, images.train.shape[1], parts)
    except FileNotFoundError:
        sys.exit(
            f"there is no {path}: train a model first, `python -m demos.{only[0]} --out {folder}`"
        )
    except (ValueError, LookupError, TypeError) as error:
        sys.exit(f"{path} is not a trained model: {error}")
    if settings["demo"] not in only:
        sys.exit(
            f"{folder} is of demos.{settings['demo']}, but this needs one of {', '.join(only)}"
        )
    model.eval()
    return Trained(model, images, settings)
