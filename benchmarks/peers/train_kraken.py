"""kraken 7: its trainer, data module and networks as `ketos train -f path` sets them up.

Options: those of its training configuration (spec, batch_size …).
"""

import contextlib
import tempfile
from pathlib import Path

import lightning
import torch
from kraken.configs import (
    RecognitionInferenceConfig,
    VGSLRecognitionTrainingConfig,
    VGSLRecognitionTrainingDataConfig,
)
from kraken.train import KrakenTrainer, VGSLRecognitionDataModule, VGSLRecognitionModel
from lightning.pytorch.callbacks import Callback
from meter import Enough, Meter, Request, Result


class Watch(Callback):
    """Shows the meter the network once it is built."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def on_train_start(self, _: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.meter.watch(pl_module.net)


def measure(request: Request) -> Result:
    """Train to the limit of CPU seconds, without the validation after each epoch, and read by best
    path.
    """
    lightning.seed_everything(request.seed)
    config = VGSLRecognitionTrainingConfig(quit="fixed", **request.options)
    files = {
        split: sorted(map(str, Path(request.data, split).glob("*.png")))
        for split in ("train", "validation")
    }
    data = VGSLRecognitionDataModule(
        VGSLRecognitionTrainingDataConfig(
            training_data=files["train"],
            evaluation_data=files["validation"][: request.judged],
            format_type="path",
            normalization="NFC",
            num_workers=0,
        )
    )
    meter, model = Meter(request.cpu_seconds), VGSLRecognitionModel(config)
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(Enough):
        _trainer(config, meter, folder).fit(model, data)
    return meter.result(_read(model, data))


def _trainer(config: VGSLRecognitionTrainingConfig, meter: Meter, folder: str) -> KrakenTrainer:
    return KrakenTrainer(
        accelerator="cpu",
        devices=1,
        precision=config.precision,
        max_epochs=-1,
        min_epochs=config.min_epochs,
        accumulate_grad_batches=config.accumulate_grad_batches,
        gradient_clip_val=config.gradient_clip_val,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_summary=False,
        default_root_dir=folder,
        callbacks=[Watch(meter)],
    )


@torch.inference_mode()
def _read(model: VGSLRecognitionModel, data: VGSLRecognitionDataModule) -> list[str]:
    """One by one: its batches change the order of their samples."""
    network, images, decode = (
        model.net.eval(),
        data.val_set.dataset,
        RecognitionInferenceConfig().decoder,
    )
    readings = []
    for index in range(len(images)):
        image_CHW = images[index]["image"]
        output, lengths = network(image_CHW[None], torch.tensor([image_CHW.shape[2]]))
        readings.append(
            "".join(
                character
                for character, *_ in network.codec.decode(decode(output.squeeze(2), lengths)[0])
            )
        )
    return readings
