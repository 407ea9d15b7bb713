"""What the service tells about itself at /metrics, in the words of Prometheus.

Labels take few values, whatever clients send: a label made from a path that a stranger chose would be a memory leak.
"""

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.responses import Response

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """One registry for each service, so that two in one process do not count for each other."""

    def __init__(self):
        self.registry = CollectorRegistry()
        into = {"registry": self.registry, "namespace": "service"}
        self.requests = Counter("requests", "Requests answered", ["path", "status"], **into)
        self.seconds = Histogram(
            "request_seconds", "From a request's head to its end", ["path"], buckets=SECONDS, **into
        )
        self.first_text = Histogram("first_text_seconds", "Until the first words of an answer", buckets=SECONDS, **into)
        self.hung_up = Counter("hung_up", "Clients that left before their answer", **into)
        self.prompt_tokens = Counter("prompt_tokens", "Tokens read, pictures included", **into)
        self.answer_tokens = Counter("answer_tokens", "Tokens written", **into)
        self.rows = Histogram("batch_rows", "Requests answered together", buckets=(1, 2, 4, 8, 16, 32, 64), **into)
        self.faults = Counter("model_faults", "Batches that the model failed at", **into)
        self.in_house = Gauge("requests_in_house", "Requests arriving, waiting or being answered", **into)
        self.waiting = Gauge("requests_waiting", "Requests in the queue for the model", **into)
        self.conversations = Gauge("conversations", "Conversations remembered", **into)
        self.conversation_bytes = Gauge("conversation_bytes", "Bytes of their pictures and words", **into)

    def page(self) -> Response:
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)
