import threading

import torch
from torch import nn

from nas.errors import NasError
from nas.training.local_processes import SharedMemory


def together(count, task, size=400):
    """Run a task of an exchange in as many threads as there are processes; return what each returned or raised."""
    met, places, results = threading.Barrier(count, timeout=300), [None] * count, [None] * count
    buffer = torch.zeros(count + 1, size)

    def run(rank):
        def gather(value):
            places[rank] = value
            met.wait()
            values = list(places)
            met.wait()
            return values

        try:
            results[rank] = task(SharedMemory(rank, count, gather, buffer), rank)
        except NasError as error:
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_sums_and_gathered_values_are_those_of_all():
    assert together(3, lambda exchange, rank: exchange.sums((rank, 2.5), "cpu")) == [[3, 7.5]] * 3
    assert together(3, lambda exchange, rank: exchange.gathered(rank)) == [[0, 1, 2]] * 3


def test_averages_weigh_each_process_by_its_images():
    def task(exchange, rank):
        tensors = [torch.full((7, 3), float(rank)), torch.full((2,), 10.0 * rank)]
        exchange.average(tensors, 1 + rank)
        return tensors

    for one, two in together(3, task):
        torch.testing.assert_close(one, torch.full((7, 3), 8 / 6))
        torch.testing.assert_close(two, torch.full((2,), 80 / 6))


def test_gradients_are_those_of_the_whole_batch():
    """Also where the processes have different numbers of images, and weights their channels last."""
    torch.manual_seed(0)
    images, count = torch.rand(7, 3, 6, 6), 3

    def gradients(own, average=lambda images: None):
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(128, 2)).to(memory_format=torch.channels_last)
        generator = torch.Generator().manual_seed(1)  # the processes are threads here, and share torch's own
        for parameter in model.parameters():
            parameter.data.normal_(generator=generator)
        average = average(model) if average.__name__ == "gradient_average" else average
        model(own).square().mean().backward()
        average(len(own))
        assert [p.grad.stride() for p in model.parameters()] == [p.stride() for p in model.parameters()]
        return [parameter.grad.clone() for parameter in model.parameters()]

    whole = gradients(images)
    found = together(count, lambda exchange, rank: gradients(images[rank::count], exchange.gradient_average), 1000)
    for each in found:
        for ours, theirs in zip(each, found[0], strict=True):
            assert torch.equal(ours, theirs)
        for ours, theirs in zip(each[:1] + each[2:3], whole[:1] + whole[2:3], strict=True):
            torch.testing.assert_close(ours, theirs)


def test_processes_that_are_out_of_step_say_so():
    def task(exchange, rank):
        return exchange.average([torch.ones(3)], 1) if rank else exchange.sums((1,), "cpu")

    assert all("different numbers of batches" in str(error) for error in together(2, task))
