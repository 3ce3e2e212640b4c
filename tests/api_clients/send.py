#!/usr/bin/env python3
"""Sends records with a client that others have written: send.py CLIENT URL FIRST COUNT

Each record's message is what message(i) returns; the test that calls this knows it too. It sends the second half when it has read a
line from standard input, and ends when that has ended. Ends with 0 if the client is content."""

import json
import logging
import sys
import time
import urllib.error
import urllib.request
import uuid
from http.client import HTTPException
from itertools import islice
from urllib.parse import urlsplit

CLIENT, URL, FIRST, COUNT = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
HOST, PORT = urlsplit(URL).hostname, urlsplit(URL).port


def message(i):
    return f'record {i} "quoted" \\ é 日本\twith a tab\nand a second line'


def messages():
    for i in range(FIRST, FIRST + COUNT):
        if i == FIRST + COUNT // 2:
            sys.stdin.readline()
        yield message(i)
    sys.stdin.read()


def batches(size):
    all = messages()
    while batch := list(islice(all, size)):
        yield batch


def by_logging(handler, close=None):
    """Records through Python's logging."""
    logger = logging.getLogger("shop")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    for text in messages():
        logger.info("%s", text)
    (close or handler.close)()


def loki():
    import logging_loki

    by_logging(logging_loki.LokiHandler(url=f"{URL}/loki/api/v1/push", tags={"job": "shop"}, version="1"))


def loki_logger_handler():
    from loki_logger_handler.loki_logger_handler import LokiLoggerHandler

    handler = LokiLoggerHandler(url=f"{URL}/loki/api/v1/push", labels={"job": "shop"}, timeout=1, compressed=True)
    by_logging(handler, handler.flush)


def elasticsearch():
    from elasticsearch import Elasticsearch, helpers

    client = Elasticsearch(URL, retry_on_timeout=True, max_retries=1_000_000)
    assert client.info()["version"]["number"].startswith("8.")
    actions = ({"_index": "shop", "_id": str(i), "n": i, "message": text} for i, text in enumerate(messages(), FIRST))
    # One bulk after the other, each until it is taken.
    for ok, item in helpers.streaming_bulk(client, actions, chunk_size=50, max_retries=100, initial_backoff=0.1, max_backoff=0.5):
        assert ok, item


def splunk():
    from splunk_handler import SplunkHandler

    handler = SplunkHandler(
        host=HOST, port=PORT, token="token", index="main", sourcetype="shop", protocol="http", verify=False,
        flush_interval=0.2, retry_count=60, retry_backoff=0.05, timeout=10,
    )
    # By itself it forgets at its end what it is sending again.
    by_logging(handler, lambda: (handler.wait_until_empty(), handler.force_flush(), logging.shutdown()))


def splunk_ack():
    """Splunk's indexer acknowledgement, for which no client was to be had: asks until each batch is acknowledged, and sends again what
    has not become so in two seconds."""
    channel, waiting = str(uuid.uuid4()), {}

    def post(path, body):
        headers = {"Authorization": "Splunk token", "X-Splunk-Request-Channel": channel}
        try:
            with urllib.request.urlopen(urllib.request.Request(URL + path, body.encode(), headers), timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            assert error.code in (429, 503), error
        except (OSError, HTTPException):
            pass
        time.sleep(0.05)
        return None

    def send(batch):
        body = "".join(json.dumps({"event": text, "sourcetype": "shop"}) for text in batch)
        while (answer := post("/services/collector/event", body)) is None:
            pass
        waiting[answer["ackId"]] = (batch, time.monotonic())

    def ask():
        acks = (post("/services/collector/ack", json.dumps({"acks": list(waiting)})) or {"acks": {}})["acks"]
        for number in [n for n in waiting if acks.get(str(n))]:
            del waiting[number]
        for number in [n for n, (_, since) in waiting.items() if time.monotonic() - since > 2]:
            send(waiting.pop(number)[0])

    for batch in batches(50):
        send(batch)
        ask()
    while waiting:
        ask()


def otlp(compression=None):
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
    from opentelemetry.sdk.resources import Resource

    provider = LoggerProvider(resource=Resource.create({"service.name": "shop"}))
    exporter = OTLPLogExporter(endpoint=f"{URL}/v1/logs", compression=Compression.Gzip if compression else None)
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter, max_queue_size=100_000, max_export_batch_size=50, schedule_delay_millis=100))
    by_logging(LoggingHandler(logger_provider=provider), lambda: (provider.force_flush(60_000), provider.shutdown()))


def otlp_gzip():
    otlp("gzip")


def datadog():
    from datadog_api_client import ApiClient, Configuration
    from datadog_api_client.v2.api.logs_api import LogsApi
    from datadog_api_client.v2.model.content_encoding import ContentEncoding
    from datadog_api_client.v2.model.http_log import HTTPLog
    from datadog_api_client.v2.model.http_log_item import HTTPLogItem
    from urllib3.util import Retry

    # `enable_retry=True` alone gives up where a connection ends without an answer.
    retry = Retry(60, allowed_methods=None, status_forcelist=[429, 500, 502, 503, 504], backoff_factor=0.1)
    configuration = Configuration(host=URL, retry_policy=retry)
    configuration.api_key["apiKeyAuth"] = "key"
    configuration.server_index = None
    with ApiClient(configuration) as client:
        for batch in batches(50):
            items = [HTTPLogItem(message=text, service="shop", hostname="host") for text in batch]
            LogsApi(client).submit_log(HTTPLog(items), content_encoding=ContentEncoding.GZIP)


def gelf():
    import graypy

    by_logging(graypy.GELFHTTPHandler(HOST, PORT, compress=True))


if __name__ == "__main__":
    start = time.monotonic()
    globals()[CLIENT]()
    print(f"{CLIENT}: {COUNT} records in {time.monotonic() - start:.1f} s")
