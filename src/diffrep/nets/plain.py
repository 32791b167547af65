"""Your own networks: any nn.Module as encoder or decoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffrep.errors import UserError
from diffrep.nets.blocks import Conditions
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
