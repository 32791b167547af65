"""What a training step gains where freed memory is kept: python benchmarks/memory.py

The default U-Net on batches of 64 of 3x32x32 and of 1x28x28, forward and backward, one thread; processes with and
without `training.memory.keep_memory` in turn, the least seconds of CPU time (user and system) of three each.
"""

import subprocess
import sys

STEPS, ROUNDS, SHAPES = 12, 3, ((1, 28, 28), (3, 32, 32))


def here(kept: bool, shape: tuple[int, ...]) -> None:
    """The steps themselves, in a process of their own: prints the seconds of one."""
    import time

    import torch

    from diffrep.nets.conditioning import Conditioning
    from diffrep.nets.decoders import UNet
    from diffrep.training.memory import keep_memory

    torch.set_num_threads(1)
    if kept:
        keep_memory()
    net = UNet(shape, conditioning=Conditioning(32)).to(memory_format=torch.channels_last)
    x = torch.randn(64, *shape).to(memory_format=torch.channels_last)
    arguments = (x, torch.linspace(-5, 13, 64), torch.randn(64, 32))
    for step in range(STEPS + 3):
        if step == 3:
            began = time.process_time()
        net.zero_grad(set_to_none=True)
        net(*arguments).square().sum().backward()
    print((time.process_time() - began) / STEPS)


def main() -> None:
    for shape in SHAPES:
        best = {False: float("inf"), True: float("inf")}
        for _ in range(ROUNDS):
            for kept in best:
                words = [sys.executable, __file__, str(int(kept)), *map(str, shape)]
                best[kept] = min(best[kept], float(subprocess.run(words, capture_output=True, check=True).stdout))
        ratio = best[False] / best[True]
        print(f"{shape}: {best[False]:.3f} s a step, {best[True]:.3f} s with memory kept, {ratio:.2f} times as fast")


if __name__ == "__main__":
    here(bool(int(sys.argv[1])), tuple(map(int, sys.argv[2:]))) if len(sys.argv) > 1 else main()
