"""Measurements of the service for Prometheus, shown at /metrics.

Labels take few values, whatever clients send: a label made from a path of the client's choice would leak memory.
"""

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.responses import Response

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
NAMESPACE = "service"


class Metrics:
    """Hold the measurements of one service in a registry of its own, so that two services in a process do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Requests answered", ["path", "status"])
        self.seconds = self._histogram("request_seconds", "From a request's head to its end", SECONDS, ["path"])
        self.first_text = self._histogram("first_text_seconds", "Until the first text of an answer", SECONDS)
        self.disconnected_clients = self._counter("disconnected_clients", "Clients that left before their answer")
        self.prompt_tokens = self._counter("prompt_tokens", "Tokens of prompts, images included")
        self.answer_tokens = self._counter("answer_tokens", "Tokens generated")
        self.batch_rows = self._histogram("batch_rows", "Requests answered together", BATCH_SIZES)
        self.model_errors = self._counter("model_errors", "Batches that the model failed at")
        self.decoders_ended = self._counter("decoders_ended", "Image decoders ended during an image", ["reason"])
        self.in_progress = self._gauge("requests_in_progress", "Requests arriving, waiting or being answered")
        self.waiting = self._gauge("requests_waiting", "Requests in the queue for the model")
        self.abandoned_calls = self._gauge("abandoned_calls", "Calls that still run after their client has left")
        self.conversations = self._gauge("conversations", "Conversations stored")
        self.conversation_bytes = self._gauge("conversation_bytes", "Bytes of their images and texts")

    def page(self) -> Response:
        """Return all measurements in Prometheus's text format."""
        return Response(generate_latest(self.registry), media_type=CONTENT_TYPE_LATEST)

    def _counter(self, name: str, description: str, labels: list[str] | None = None) -> Counter:
        return Counter(name, description, labels or [], namespace=NAMESPACE, registry=self.registry)

    def _histogram(
        self, name: str, description: str, buckets: tuple[float, ...], labels: list[str] | None = None
    ) -> Histogram:
        return Histogram(name, description, labels or [], buckets=buckets, namespace=NAMESPACE, registry=self.registry)

    def _gauge(self, name: str, description: str) -> Gauge:
        return Gauge(name, description, namespace=NAMESPACE, registry=self.registry)
