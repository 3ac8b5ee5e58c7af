"""A gRPC server: the health service, with the messages written as bytes. Its argument is its address."""

import sys
from concurrent import futures

import grpc

STATUS = {b"": 1, b"good.Service": 1, b"sick.Service": 2, b"unsure.Service": 0}


def check(request, context):
    """The request's field 1, at most 127 bytes long, is the service."""
    service = request[2:]
    if service == b"broken.Service":
        return b"\xff\xff"
    if service not in STATUS:
        context.abort(grpc.StatusCode.NOT_FOUND, "no such service: 100%")
    return bytes([8, STATUS[service]]) if STATUS[service] else b""


class Health(grpc.GenericRpcHandler):
    def service(self, details):
        if details.method == "/grpc.health.v1.Health/Check" and len(sys.argv) == 2:
            return grpc.unary_unary_rpc_method_handler(check)
        return None


server = grpc.server(futures.ThreadPoolExecutor(max_workers=2))
server.add_generic_rpc_handlers((Health(),))
server.add_insecure_port(sys.argv[1])
server.start()
server.wait_for_termination()
