"""Who started this process beside others: torchrun says so by itself, Open MPI in words of its own."""

from __future__ import annotations

from collections.abc import MutableMapping

from medseg.errors import ConfigError

OPEN_MPI = {
    "WORLD_SIZE": "OMPI_COMM_WORLD_SIZE",
    "RANK": "OMPI_COMM_WORLD_RANK",
    "LOCAL_RANK": "OMPI_COMM_WORLD_LOCAL_RANK",
    "LOCAL_WORLD_SIZE": "OMPI_COMM_WORLD_LOCAL_SIZE",
}
MEETING = ("MASTER_ADDR", "MASTER_PORT")


def adopt_open_mpi(environment: MutableMapping[str, str]) -> None:
    """Name the place that `mpirun` gave as torchrun does, where torchrun did not.

    Raises:
        ConfigError: several processes, and no address to meet at: each would train alone, and write the same run.
    """
    count = environment.get(OPEN_MPI["WORLD_SIZE"], "1")
    if "WORLD_SIZE" in environment or count == "1":
        return
    if missing := [name for name in MEETING if name not in environment]:
        raise ConfigError(
            f"mpirun started {count} processes, and {' and '.join(missing)} do not say where they meet.",
            advice="Give mpirun -x MASTER_ADDR=HOST -x MASTER_PORT=29500 (the first one's computer), or use torchrun.",
        )
    for ours, theirs in OPEN_MPI.items():
        environment[ours] = environment[theirs]
