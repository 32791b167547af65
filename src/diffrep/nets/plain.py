"""Your own networks: any nn.Module as encoder or decoder, and a U-Net of the diffusers library as decoder."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from diffrep.errors import UserError
from diffrep.nets.blocks import Conditions, Padding
from diffrep.nets.conditioning import NOISE_LEVEL, Conditioning
from diffrep.nets.decoders import Decoder
from diffrep.nets.encoders import Encoder
from diffrep.shapes import CodeVector, Data, FeatureMap, Shape, Time


class PlainEncoder(Encoder):
    """module(x) with x (B, *shape) -> (B, ...), flattened, as an encoder. It does not read a noise level.

    UserError: the module does not take such data.
    """

    def __init__(self, module: nn.Module, shape: Shape):
        was_training = module.training
        try:
            with torch.no_grad():
                features = module.eval()(torch.zeros(2, *shape)).flatten(1).shape[1]
        except (RuntimeError, TypeError, IndexError) as error:
            raise UserError(
                f"the encoder {type(module).__name__} does not take data of shape (B, *{tuple(shape)}): {error}"
            ) from error
        super().__init__(shape, features, condition_width=1, time=False)
        self.module = module.train(was_training)

    def body(self, x: Data, conditions: Conditions) -> CodeVector:
        return self.module(x).flatten(1)


class PlainDecoder(nn.Module):
    """module(x_t, log_snr, z) -> like x_t as a decoder; module(x_t, log_snr) where code_dim is 0.

    x_t (B, *shape) of variance near one, followed by the channels that a parameterisation adds, log_snr (B,),
    z (B, code_dim). A learned null code replaces a code that is dropped or missing.
    """

    def __init__(self, module: nn.Module, shape: Shape, code_dim: int = 0):
        super().__init__()
        self.module, self.shape, self.code_dim = module, tuple(shape), code_dim
        self.null = nn.Parameter(torch.zeros(code_dim)) if code_dim else None

    def forward(
        self,
        x_t: Data,
        log_snr: Time,
        z: CodeVector | None = None,
        extra: FeatureMap | None = None,
        drop: Tensor | None = None,
    ) -> Data:
        h = x_t if extra is None else torch.cat([x_t, extra], 1)
        if self.null is None:
            return self.module(h, log_snr)
        null = self.null.expand(len(x_t), -1)
        code = null if z is None else z if drop is None else torch.where(drop[:, None], null, z)
        return self.module(h, log_snr, code)


class DiffusersUNet(Decoder):
    """A `UNet2DModel` of the diffusers library as a decoder of pictures (C, H, W).

    unet: with class_embed_type="identity". The vectors of noise level and code take the place of its class, and its own
    timestep stays 0. UserError: another embedding, or other channels than C out and those of x_t in.
    """

    def __init__(self, unet: Any, shape: Shape, conditioning: Conditioning = NOISE_LEVEL):
        c = unet.config
        width = 4 * c.block_out_channels[0]
        super().__init__(shape, width, replace(conditioning, width=width))
        wanted = {"in_channels": self.inputs, "out_channels": shape[0], "class_embed_type": "identity"}
        if got := {name: c[name] for name, value in wanted.items() if c[name] != value}:
            shown = (", ".join(f"{name}={words[name]!r}" for name in got) for words in (wanted, got))
            raise UserError("expected a UNet2DModel with {}, got {}".format(*shown))
        self.unet, self.padding = unet, Padding(shape[1:], 2 ** (len(c.block_out_channels) - 1))

    def body(self, h: FeatureMap, conditions: Conditions, z: CodeVector | None) -> Data:
        start = torch.zeros(len(h), device=h.device)
        return self.padding.crop(self.unet(self.padding.pad(h), start, class_labels=sum(conditions)).sample)
