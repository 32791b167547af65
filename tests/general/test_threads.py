"""Work on several threads: the same numbers bit for bit, in order, never far ahead, each thread with one of its own."""

import re
import threading

import pytest
import torch
from threadpoolctl import threadpool_info

from diffrep.evaluation.bound import bound
from diffrep.evaluation.encoding import encode_split
from diffrep.evaluation.information import profile
from diffrep.threads import in_order, pool
from every_measure import splits
from tiny import base

CPU = torch.device("cpu")
SOON = 20  # seconds


def test_results_come_in_order_and_nothing_is_read_far_ahead(two_threads):
    read = []

    def items():
        for k in range(20):
            read.append(k)
            yield k

    for k, (item, made) in enumerate(in_order(lambda item: item**2, items(), CPU)):
        assert (item, made) == (k, k**2) and len(read) <= k + 3
    assert k == 19


def test_two_are_made_at_once(two_threads):
    both = threading.Barrier(2)
    assert len(list(in_order(lambda _: both.wait(SOON), range(2), CPU))) == 2


def test_each_thread_computes_with_one(two_threads):
    """By torch and its MKL, which set their number again at the first call in a thread, and by every other library; no
    gradients."""

    def seen(_):
        torch.ones(9) @ torch.ones(9)
        of_torch = re.findall(r"_get_max_threads\(\) : (\d+)", torch.__config__.parallel_info())  # OpenMP's and MKL's
        return {*map(int, of_torch), *(info["num_threads"] for info in threadpool_info())}, torch.is_grad_enabled()

    before = [info["num_threads"] for info in threadpool_info()]
    assert all(made == ({1}, False) for _, made in in_order(seen, range(4), CPU))
    assert [info["num_threads"] for info in threadpool_info()] == before and torch.get_num_threads() == 2
    assert torch.is_grad_enabled()


def test_two_pools_that_end_in_the_other_order_leave_what_was_before(two_threads):
    """Each in a thread of its own: the first is open when the second begins, and ends first."""
    before = [info["num_threads"] for info in threadpool_info()]
    first_open, second_open, first_closed = (threading.Event() for _ in range(3))

    def first():
        with pool(2):
            first_open.set()
            assert second_open.wait(SOON)
        first_closed.set()

    def second():
        assert first_open.wait(SOON)
        with pool(2) as threads:
            second_open.set()
            assert first_closed.wait(SOON)
            threads.submit(torch.get_num_threads).result()

    others = [threading.Thread(target=one) for one in (first, second)]
    for other in others:
        other.start()
    for other in others:
        other.join(SOON)
    seen = []
    (later := threading.Thread(target=lambda: seen.append(torch.get_num_threads()))).start()
    later.join(SOON)
    assert seen == [2] and [info["num_threads"] for info in threadpool_info()] == before


def test_an_error_reaches_the_caller(two_threads):
    def fails(item):
        raise ValueError(f"item {item}")

    with pytest.raises(ValueError, match="item 0"):
        list(in_order(fails, range(9), CPU))


def test_with_one_thread_all_is_made_by_the_caller():
    assert {who for _, who in in_order(lambda _: threading.current_thread(), range(3), CPU)} == {
        threading.main_thread()
    }
    for _ in in_order(lambda item: item, range(3), CPU):
        assert torch.is_grad_enabled()


@pytest.mark.slow
def test_numbers_are_those_of_one_thread():
    """Bound, codes and profile, over several batches."""
    model, test = base("vae-vdm").model, splits().test

    def numbers():
        told, of_code = bound(model, test, batch=32), encode_split(model, test, batch=100)
        shown = profile(model, test, levels=4, batch=32)
        return torch.cat([told.total, of_code.mean.flatten(), of_code.spread.flatten(), shown.nats_per_log_snr])

    one = numbers()
    torch.set_num_threads(2)
    assert torch.equal(numbers(), one)
