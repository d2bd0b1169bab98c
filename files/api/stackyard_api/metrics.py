"""What Prometheus is told: counts, seconds and states of this replica."""

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter(
    "stackyard_requests_total", "Requests answered.", ["method", "operation", "status"]
)
SECONDS = Histogram(
    "stackyard_request_seconds",
    "Seconds from a request's head to the end of its answer.",
    ["operation"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
IN_FLIGHT = Gauge("stackyard_requests_in_flight", "Requests that are being answered.")
REFUSED = Counter(
    "stackyard_requests_refused_total", "Requests refused with 503 since too many were in flight."
)
READS = Counter("stackyard_item_reads_total", "Reads of one item, by who answered.", ["source"])
DEPENDENCY = Gauge(
    "stackyard_dependency_up", "1 while database or cache answers, 0 while not.", ["dependency"]
)
CONNECTIONS = Gauge(
    "stackyard_database_connections", "Connections to the database, by state.", ["state"]
)
CONFIG = Gauge(
    "stackyard_config_valid", "1 while the configuration file is the one in use, 0 while not."
)
