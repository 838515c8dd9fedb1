"""Asks a rate-limit service over gRPC what its standard input says, and prints the answers.

It knows no message of the rate-limit service beforehand: the server's reflection tells it.
../clients_test.go says what goes in and must come out.
"""

import collections
import json
import sys

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "envoy.service.ratelimit.v3.RateLimitService"
PATIENCE = 30  # seconds


def main() -> None:
    asked = json.load(sys.stdin)
    with grpc.insecure_channel(asked["address"]) as channel:
        reflected = ProtoReflectionDescriptorDatabase(channel)
        print(
            json.dumps(
                {
                    "health": {name: health(channel, name) for name in asked["health"]},
                    "watched": watched(channel),
                    "services": sorted(reflected.get_services()),
                    "answers": answers(channel, reflected, asked["calls"]),
                }
            )
        )


def health(channel: grpc.Channel, name: str) -> str:
    try:
        answer = health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE
        )
    except grpc.RpcError as refused:
        return refused.code().name
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def watched(channel: grpc.Channel) -> str:
    """Returns the first message of a stream."""
    stream = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE)
    first = next(stream)
    stream.cancel()
    return health_pb2.HealthCheckResponse.ServingStatus.Name(first.status)


def answers(channel: grpc.Channel, reflected: ProtoReflectionDescriptorDatabase, calls: list) -> list:
    pool = descriptor_pool.DescriptorPool(reflected)
    method = pool.FindServiceByName(SERVICE).methods_by_name["ShouldRateLimit"]
    request = message_factory.GetMessageClass(method.input_type)
    response = message_factory.GetMessageClass(method.output_type)
    ask = channel.unary_unary(
        f"/{SERVICE}/ShouldRateLimit",
        request_serializer=request.SerializeToString,
        response_deserializer=response.FromString,
    )
    seen = []
    for call in calls:
        message = json_format.ParseDict(call["request"], request())
        compression = grpc.Compression.Gzip if call.get("gzip") else None
        at_once = [
            ask.future(message, timeout=PATIENCE, compression=compression) for _ in range(call.get("times", 1))
        ]
        codes, statuses = collections.Counter(), []
        for answer in at_once:
            if answer.exception():
                codes[answer.code().name] += 1
                continue
            told = json_format.MessageToDict(answer.result(), preserving_proto_field_name=True)
            codes[told["overall_code"]] += 1
            statuses = [status(s) for s in told["statuses"]]
        seen.append({"codes": codes, "statuses": statuses if len(at_once) == 1 else []})
    return seen


def status(told: dict) -> dict:
    limit = told.get("current_limit", {})
    return {
        "code": told["code"],
        "limit": limit.get("requests_per_unit", 0),
        "unit": limit.get("unit", ""),
        "remaining": told.get("limit_remaining", 0),
        "resets": "duration_until_reset" in told,
    }


main()
