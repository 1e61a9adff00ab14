"""How much memory tensors took at most while something ran, counted storage by storage."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class HighWater(TorchDispatchMode):
    """The most bytes alive at the same time of tensors made inside; what was there before does not count."""

    def __init__(self, *before):
        super().__init__()
        self.alive, self.now, self.most = dict.fromkeys((t.untyped_storage().data_ptr() for t in before), 0), 0, 0

    def forget(self, key):
        self.now -= self.alive.pop(key)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor) and (storage := tensor.untyped_storage()).data_ptr() not in self.alive:
                self.alive[storage.data_ptr()] = storage.nbytes()
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                weakref.finalize(storage, self.forget, storage.data_ptr())
        return result
