"""Which workers there are."""

import multiprocessing

import pytest
import torch

from skipsr.errors import SettingsError
from skipsr.farm import cluster
from skipsr.farm.cluster import Share, divide
from skipsr.farm.devices import device_names, make_workers
from skipsr.farm.processes import Processes
from skipsr.farm.task import ModelSettings


def test_names(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device_names("all", "auto") == ["cuda:0", "cuda:1"]
    assert device_names("cuda:1, cpu:3", "auto") == ["cuda:1", "cpu", "cpu", "cpu"]
    assert device_names("all", "cuda") == ["cuda"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert device_names("all", "auto") == ["cpu"]


@pytest.mark.parametrize(
    "devices",
    ["cuda:0", "cuda", "warp", "", "cpu:0", "cpu:two", "cpu:-1", "cpu,", "auto", "x:y"],
)
def test_what_is_not_there_is_refused(devices: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(SettingsError, match=r"`devices` .*: give"):
        device_names(devices, "auto")


def test_one_device_or_several():
    with pytest.raises(SettingsError, match="`device` or `devices`"):
        device_names("cpu:2", "cpu")


def test_workers_share_threads_and_memory_evenly(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 9)
    four = make_workers(["cpu"] * 4, ModelSettings())
    (alone,) = make_workers(["cpu"], ModelSettings())
    assert [worker.threads for worker in four] == [2] * 4
    assert (alone.threads, alone.memory) == (9, None)
    assert all(worker.memory is not None for worker in four)
    cards = make_workers(["cuda:0", "cuda:1"], ModelSettings())  # weights may wait in the host's
    assert all(worker.memory is not None for worker in cards)


def test_a_cluster_is_divided_by_cards_or_machines_or_as_asked():
    nodes = {"a": {"CPU": 8.0, "GPU": 2.0}, "b": {"CPU": 4.0}, "c": {"memory": 1.0}}
    assert divide("all", nodes) == [Share(cpus=4, gpus=1, sharers=2, node="a")] * 2
    assert divide("cpu:6", nodes) == [Share(cpus=2, sharers=4)] * 6
    assert divide("all", {"b": {"CPU": 4.0}}) == [Share(cpus=4, node="b")]


def test_a_worker_of_a_machine_with_more_cards_than_processors_has_a_thread(
    monkeypatch: pytest.MonkeyPatch,
):
    threads: list[int] = []
    monkeypatch.setattr(cluster, "Worker", lambda spec: threads.append(spec.threads))
    for share in divide("all", {"a": {"CPU": 4.0, "GPU": 8.0}}):
        assert share.cpus == 0  # as Ray counts, which would else not place all of them
        _, problem = cluster.Actor().load(ModelSettings(), share)
        assert problem is None
    assert threads == [1] * 8


def test_workers_that_die_before_they_are_ready_end_the_batch():
    with Processes(make_workers(["cpu"], ModelSettings()), retries=1) as pool:
        for again in (False, True):
            (process,) = multiprocessing.active_children()
            process.kill()
            if again:
                with pytest.raises(SettingsError, match=r"killed by SIGKILL.* before it was"):
                    pool.wait()
            else:
                assert pool.wait() is None
    assert not multiprocessing.active_children()
