"""Fresh process that loads a fitted network and encodes one image.

`python fresh_process.py prepare FOLDER` writes the files that the sides load. The
process that is timed is `python fresh_process.py SIDE FOLDER`, which writes its result
to SIDE.npy.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np

SIZE, HIDDEN_LAYERS = 128, 4


def prepare(folder: Path) -> None:
    """Fit a network and save it for all sides."""
    import joblib
    import keras
    import onnx
    import torch

    from benchmarks.networks.torch_vae import build_networks, load_weights
    from benchmarks.speed.workloads import FILTERS, LATENT_DIM
    from skvae import ConvVAE
    from skvae.exceptions import PosteriorCollapseWarning

    images = np.random.default_rng(0).random((64, SIZE, SIZE), dtype=np.float32)
    vae = ConvVAE(LATENT_DIM, filters=FILTERS, hidden_layers=HIDDEN_LAYERS, epochs=1)
    # Images of noise leave the latents unused.
    warnings.simplefilter("ignore", PosteriorCollapseWarning)
    vae.fit(images)
    np.save(folder / "image.npy", images[:1])
    joblib.dump(vae, folder / "vae.joblib")
    onnx.save(vae.to_onnx().encoder, folder / "encoder.onnx")
    encoder = vae.to_keras().encoder
    keras.Model(encoder.inputs, encoder.outputs[0]).save(folder / "encoder.keras")
    networks = build_networks(
        (SIZE, SIZE),
        latent_dim=LATENT_DIM,
        filters=FILTERS,
        hidden_layers=HIDDEN_LAYERS,
    )
    load_weights(*networks, vae.weights_)
    torch.save(networks[0].state_dict(), folder / "encoder.pt")


def skvae(folder: Path, image: np.ndarray) -> np.ndarray:
    """Load a joblib file."""
    import joblib

    return joblib.load(folder / "vae.joblib").transform(image)


def keras_predict_on_batch(folder: Path, image: np.ndarray) -> np.ndarray:
    """Load a file in the format of Keras."""
    import keras

    model = keras.saving.load_model(folder / "encoder.keras")
    return model.predict_on_batch(image[..., None])


def pytorch(folder: Path, image: np.ndarray) -> np.ndarray:
    """Build the network and load a file of weights."""
    import torch

    from benchmarks.networks.torch_vae import build_networks, mirrored
    from benchmarks.speed.workloads import FILTERS, LATENT_DIM

    encoder, _ = build_networks(
        (SIZE, SIZE),
        latent_dim=LATENT_DIM,
        filters=FILTERS,
        hidden_layers=HIDDEN_LAYERS,
    )
    encoder.load_state_dict(torch.load(folder / "encoder.pt", weights_only=True))
    with torch.inference_mode():
        return encoder(mirrored(image))[0].numpy()


def onnx_runtime(folder: Path, image: np.ndarray) -> np.ndarray:
    """Load the encoder of `to_onnx`."""
    import onnxruntime

    encoder = onnxruntime.InferenceSession(folder / "encoder.onnx")
    return encoder.run(["z_mean"], {"images": image[..., None]})[0]


def only_imports(_: Path, __: np.ndarray) -> None:
    """Import scikit-learn, as skvae does."""
    import sklearn.pipeline  # noqa: F401


SIDES = {
    "skvae": skvae,
    "only import sklearn.pipeline": only_imports,
    "Keras predict_on_batch": keras_predict_on_batch,
    "PyTorch": pytorch,
    "ONNX Runtime": onnx_runtime,
}


def main() -> None:
    """Prepare the files or run one side."""
    side, folder = sys.argv[1], Path(sys.argv[2])
    if side == "prepare":
        prepare(folder)
        return
    result = SIDES[side](folder, np.load(folder / "image.npy"))
    if result is not None:
        np.save(folder / f"{side}.npy", result)


if __name__ == "__main__":
    main()
