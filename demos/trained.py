"""A model that another demo trained, loaded from that run's folder."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from demos import autoencoder, cvae, iwae, vae
from demos.common import digest, load_images
from tinygen.data import Images
from tinygen.io import load

DEMOS: dict[str, ModuleType] = {"vae": vae, "iwae": iwae, "cvae": cvae, "autoencoder": autoencoder}


class Trained(NamedTuple):
    """model: has `code`, from images (n, pixels) to codes (n, latent), and `decode`, from codes to mean images.
    settings: of its run. identity: a hash of its weights.
    """

    model: Any
    images: Images
    settings: dict
    identity: str


def load_trained(folder: Path, *, only: tuple[str, ...] = tuple(DEMOS)) -> Trained:
    """The model in `folder`, trained by one of the demos `only`. Exits with a message if there is none."""
    path = folder / "checkpoint.safetensors"
    try:
        state = load(path)
    except FileNotFoundError:
        sys.exit(
            f"there is no {path}: train a model first, `python -m demos.{only[0]} --out {folder}`"
        )
    except OSError as error:
        sys.exit(f"cannot read {path}: {error.strerror}; name the folder of a run")
    except ValueError as error:
        sys.exit(f"{path} is not a trained model: {error}")
    settings = state.get("settings", {}) if isinstance(state, dict) else {}
    name = settings.get("demo")
    if name not in only:
        sys.exit(f"{folder} is of {name or 'no demo'}, but this needs one of {', '.join(only)}")
    images = load_images(settings["data"])
    try:
        model = DEMOS[name].rebuild(settings, images.train.shape[1], state["parts"])
    except (LookupError, ValueError) as error:  # of another version of the demo, say
        sys.exit(f"the model in {path} cannot be rebuilt: {error!r}")
    model.eval()
    identity = digest(model.state_dict())
    print(f"{folder}: {settings}, after {state['round']} epochs, weights {identity}")
    return Trained(model, images, settings, identity)
