// Asks a rate-limit service over gRPC what its standard input says, and prints the answers.
// It knows no message of the rate-limit service beforehand: the server's reflection tells
// it. ../clients_test.go says what goes in and must come out.
'use strict';

const fs = require('fs');
const path = require('path');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');
const descriptor = require('protobufjs/ext/descriptor');

const SERVICE = 'envoy.service.ratelimit.v3.RateLimitService';
const PATIENCE = 30_000; // milliseconds
const NAMED = { keepCase: true, enums: String, longs: Number };

// A file of an installed package.
const packaged = (name, file) => path.join(path.dirname(require.resolve(name)), file);

const loaded = (file) => grpc.loadPackageDefinition(loader.loadSync(file, NAMED));

const deadline = () => new Date(Date.now() + PATIENCE);

// The outcome of a unary call: the name of its error, or the answer.
const outcome = (client, method, message) =>
  new Promise((resolve) => {
    client[method](message, { deadline: deadline() }, (error, answer) =>
      resolve(error ? { error: grpc.status[error.code] } : { answer }));
  });

// The first message of a stream.
const first = (stream) =>
  new Promise((resolve, reject) => {
    stream.once('data', (message) => {
      stream.on('error', () => {}); // the cancellation
      stream.cancel();
      resolve(message);
    });
    stream.once('error', reject);
  });

// Asks reflection, and returns its answers in order.
const reflect = (client, requests) =>
  new Promise((resolve, reject) => {
    const stream = client.ServerReflectionInfo({ deadline: deadline() });
    const all = [];
    stream.on('data', (message) => all.push(message));
    stream.on('error', reject);
    stream.on('end', () => resolve(all));
    requests.forEach((request) => stream.write(request));
    stream.end();
  });

// All files that a service needs, from reflection alone.
async function files(client, symbol) {
  const known = new Map();
  const take = (answers) =>
    answers.forEach((a) => {
      if (a.error_response) throw new Error(a.error_response.error_message);
      a.file_descriptor_response.file_descriptor_proto.forEach((bytes) => {
        const file = descriptor.FileDescriptorProto.decode(bytes);
        known.set(file.name, file);
      });
    });
  take(await reflect(client, [{ file_containing_symbol: symbol }]));
  for (;;) {
    const missing = [...new Set([...known.values()].flatMap((f) => f.dependency))].filter((name) => !known.has(name));
    if (missing.length === 0) return { file: [...known.values()] };
    take(await reflect(client, missing.map((name) => ({ file_by_filename: name }))));
  }
}

const status = (told) => ({
  code: told.code,
  limit: told.current_limit ? told.current_limit.requests_per_unit : 0,
  unit: told.current_limit ? told.current_limit.unit : '',
  remaining: told.limit_remaining || 0,
  resets: Boolean(told.duration_until_reset),
});

// JSON writes wrapped numbers as numbers.
const wrapped = (request) => ({
  ...request,
  descriptors: (request.descriptors || []).map((d) =>
    'hits_addend' in d ? { ...d, hits_addend: { value: d.hits_addend } } : d),
});

async function main() {
  const asked = JSON.parse(fs.readFileSync(0, 'utf8'));
  const plain = grpc.credentials.createInsecure();

  const health = new (loaded(packaged('grpc-health-check', '../../proto/health/v1/health.proto')).grpc.health.v1.Health)(asked.address, plain);
  const checked = {};
  for (const service of asked.health) {
    const { error, answer } = await outcome(health, 'Check', { service });
    checked[service] = error || answer.status;
  }
  const watched = await first(health.Watch({ service: '' }, { deadline: deadline() }));

  const reflection = new (loaded(packaged('@grpc/reflection', '../proto/grpc/reflection/v1/reflection.proto')).grpc.reflection.v1.ServerReflection)(asked.address, plain);
  const [list] = await reflect(reflection, [{ list_services: '' }]);

  const definition = loader.loadFileDescriptorSetFromObject(await files(reflection, SERVICE), NAMED);
  const RateLimit = grpc.loadPackageDefinition(definition).envoy.service.ratelimit.v3.RateLimitService;
  const ordinary = new RateLimit(asked.address, plain);
  const compressing = new RateLimit(asked.address, plain, { 'grpc.default_compression_algorithm': grpc.compressionAlgorithms.gzip });

  const answers = [];
  for (const call of asked.calls) {
    const client = call.gzip ? compressing : ordinary;
    const atOnce = await Promise.all(Array.from({ length: call.times || 1 }, () => outcome(client, 'ShouldRateLimit', wrapped(call.request))));
    const codes = {};
    for (const { error, answer } of atOnce) {
      const name = error || answer.overall_code;
      codes[name] = (codes[name] || 0) + 1;
    }
    const only = atOnce.length === 1 && atOnce[0].answer;
    answers.push({ codes, statuses: only ? only.statuses.map(status) : [] });
  }
  [health, reflection, ordinary, compressing].forEach((client) => client.close());
  console.log(JSON.stringify({
    health: checked,
    watched: watched.status,
    services: list.list_services_response.service.map((s) => s.name).sort(),
    answers,
  }));
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
