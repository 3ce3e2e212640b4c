// Sends records with a client that others have written: node send.mjs CLIENT URL FIRST COUNT
//
// As send.py does it: the message of a record is message(i), the second half waits for a line from standard input, and the end for its
// end. NODE_CLIENTS says where the packages are. Ends with 0 if the client is content.

import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.env.NODE_CLIENTS, "package.json"));
const [client, url, first, count] = [process.argv[2], process.argv[3], Number(process.argv[4]), Number(process.argv[5])];

const message = (i) => `record ${i} "quoted" \\ é 日本\twith a tab\nand a second line`;
const stdin = process.stdin[Symbol.asyncIterator]();

async function* messages() {
  for (let i = first; i < first + count; i++) {
    if (i === first + Math.floor(count / 2)) await stdin.next();
    yield message(i);
  }
  while (!(await stdin.next()).done);
}

async function winstonLoki(json) {
  const winston = require("winston");
  const LokiTransport = require("winston-loki");
  const loki = new LokiTransport({
    host: url, json, labels: { job: "shop" }, format: winston.format.printf((info) => info.message), interval: 0.2,
    onConnectionError: (error) => console.error(`${error}`),
  });
  const logger = winston.createLogger({ transports: [loki] });
  for await (const text of messages()) logger.info(text);
  const finished = new Promise((done) => logger.once("finish", done));
  logger.end();
  await finished;
  await loki.close(); // winston has called it, and does not wait for it
  if (loki.batcher.batchesSending) await loki.flush();
  if (loki.batcher.batch.streams.length) throw new Error("the last batch was refused");
}

async function elasticsearch() {
  const { Client } = require("@elastic/elasticsearch");
  const es = new Client({ node: url, maxRetries: 1_000_000 });
  async function* documents() {
    for await (const text of messages()) yield { message: text };
  }
  const done = await es.helpers.bulk({
    datasource: documents(), onDocument: () => ({ create: { _index: "shop" } }), concurrency: 1, flushBytes: 5000, flushInterval: 200, wait: 200,
    onDrop: (dropped) => { throw new Error(JSON.stringify(dropped)); },
  });
  if (done.successful !== count) throw new Error(JSON.stringify(done));
}

async function splunk() {
  const { Logger } = require("splunk-logging");
  const logger = new Logger({ token: "token", url, maxBatchCount: 0, batchInterval: 0, maxRetries: 60 });
  logger.eventFormatter = (text) => text;
  let error;
  logger.error = (e) => (error = e);
  const flush = () => new Promise((done) => logger.flush(done));
  let waiting = 0;
  for await (const text of messages()) {
    logger.send({ message: text, metadata: { sourcetype: "shop" } });
    if (++waiting % 50 === 0) await flush();
  }
  if (logger.serializedContextQueue.length) await flush();
  if (error) throw error;
}

async function otlp(exporter, compression) {
  const { OTLPLogExporter } = require(`@opentelemetry/exporter-logs-otlp-${exporter}`);
  const { BatchLogRecordProcessor, LoggerProvider } = require("@opentelemetry/sdk-logs");
  const { resourceFromAttributes } = require("@opentelemetry/resources");
  const { diag, DiagConsoleLogger, DiagLogLevel } = require("@opentelemetry/api");
  diag.setLogger(new DiagConsoleLogger(), DiagLogLevel.WARN);
  const resource = resourceFromAttributes({ "service.name": "shop" });
  const made = new OTLPLogExporter({ url: `${url}/v1/logs`, compression });
  const processor = new BatchLogRecordProcessor({
    exporter: made, maxQueueSize: 100_000, maxExportBatchSize: 50, scheduledDelayMillis: 100,
  });
  const provider = new LoggerProvider({ resource, processors: [processor] });
  const logger = provider.getLogger("shop");
  let emitted = 0;
  for await (const body of messages()) {
    logger.emit({ body, severityText: "INFO" });
    if (++emitted % 50 === 0) await new Promise(setImmediate);
  }
  await provider.forceFlush();
  await provider.shutdown();
}

const clients = {
  winston_loki_json: () => winstonLoki(true),
  winston_loki_protobuf: () => winstonLoki(false),
  elasticsearch_js: elasticsearch,
  splunk_logging: splunk,
  otlp_js_json: () => otlp("http", "none"),
  otlp_js_json_gzip: () => otlp("http", "gzip"),
  otlp_js_protobuf: () => otlp("proto", "none"),
  otlp_js_protobuf_gzip: () => otlp("proto", "gzip"),
};

await clients[client]();
console.log(`${client}: ${count} records`);
process.exit(0);
