"""A decoder without a code, and a second one that adds the correction from the code."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffrep.nets.decoders import Decoder
from diffrep.shapes import CodeVector, Data, FeatureMap, Time


class Filled(nn.Module):
    """plain(x_t), and where there is a code plain(x_t) + gap(x_t, z): PDAE's posterior mean gap (Zhang et al. 2022).

    plain: a decoder without a code; it learns from the examples whose code is dropped, and no gradient reaches it from
    the others. gap: a decoder with a code; its null code is never used. The paper trains the plain decoder first and
    then freezes it; here both are trained at the same time.
    """

    def __init__(self, plain: Decoder, gap: Decoder):
        super().__init__()
        self.plain, self.gap = plain, gap
        gap.null.requires_grad_(False)

    def forward(
        self,
        x_t: Data,
        log_snr: Time,
        z: CodeVector | None = None,
        extra: FeatureMap | None = None,
        drop: Tensor | None = None,
        covariate: Tensor | None = None,
    ) -> Data:
        plain = self.plain(x_t, log_snr, extra=extra, covariate=covariate)
        if z is None:
            return plain
        filled = plain.detach() + self.gap(x_t, log_snr, z, extra=extra, covariate=covariate)
        return filled if drop is None else torch.where(drop.reshape(-1, *[1] * (x_t.ndim - 1)), plain, filled)
