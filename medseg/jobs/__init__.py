"""Jobs: one warm process per running study, with progress, cancelling, a queue and batches."""

from __future__ import annotations

from medseg.jobs.queue import Job, JobQueue, JobStatus
from medseg.jobs.request import Failure, JobRequest, Outcome, Work
