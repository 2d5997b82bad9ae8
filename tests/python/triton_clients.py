"""Drives a running gateway with the clients of `tritonclient`, as programs written for Triton do.

Run by the gateway's own tests (edge-runtime/agent/tests/it/clients.rs), which serve `digits`, one image a request, and
`digits-batch`, up to 64 of them, both version 1.0.0. Answers are held to ONNX Runtime's, which live.safetensors has.
"""

import argparse
import asyncio
from pathlib import Path

import numpy as np
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from safetensors.numpy import load_file
from tritonclient.utils import InferenceServerException

LIVE = load_file(Path(__file__).parents[2] / "examples/digits/live.safetensors")
IMAGES, EXPECTED = LIVE["images"].reshape(-1, 1, 8, 8).astype(np.float32), LIVE["expected/1.0.0"].reshape(-1, 10)
MODELS = ["digits", "digits-batch"]

CHECKS, DONE = [], []


def check(function):
    """A check: called with a client and what differs between the protocols."""
    CHECKS.append(function)
    return function


def done(what):
    DONE.append(what)
    print(what, flush=True)


def close(found, first, count):
    np.testing.assert_allclose(found, EXPECTED[first : first + count], rtol=1e-3, atol=1e-4)


def refused(call, status, *words):
    """A call that must fail, with this status and a message that says so."""
    try:
        call()
    except InferenceServerException as error:
        assert error.status() == status, f"{error.status()}, not {status}: {error}"
        for word in words:
            assert word in error.message(), f"{word!r} is not in {error.message()!r}"
        return
    raise AssertionError(f"no error, where {status} was expected")


class Http:
    """What differs between the protocols, for HTTP."""

    module, unknown, invalid, expired = triton_http, "404", "400", "504"

    @staticmethod
    def image(first=0, count=1, binary=True):
        tensor = triton_http.InferInput("image", [count, 1, 8, 8], "FP32")
        return tensor.set_data_from_numpy(IMAGES[first : first + count], binary_data=binary)

    @staticmethod
    def scores(binary=True, **more):
        return triton_http.InferRequestedOutput("scores", binary_data=binary, **more)


@check
def health(client, _):
    assert client.is_server_live() and client.is_server_ready()
    for model in MODELS:
        assert client.is_model_ready(model) and client.is_model_ready(model, "1.0.0")
    assert not client.is_model_ready("other") and not client.is_model_ready("digits", "9")


@check
def answers_are_onnx_runtimes(client, kit):
    for first in range(0, len(IMAGES), 7):
        result = client.infer("digits", [kit.image(first)])
        close(result.as_numpy("scores"), first, 1)


@check
def batches(client, kit):
    for count in [1, 2, 64]:
        close(client.infer("digits-batch", [kit.image(3, count)]).as_numpy("scores"), 3, count)
    refused(lambda: client.infer("digits-batch", [kit.image(0, 65)]), kit.invalid, "1 to 64 rows")


@check
def the_same_names_in_another_model_are_other_tensors(client, kit):
    refused(lambda: client.infer("digits", [kit.image(0, 2)]), kit.invalid, "[1, 1, 8, 8]", "[2, 1, 8, 8]")
    close(client.infer("digits-batch", [kit.image(0, 2)]).as_numpy("scores"), 0, 2)


@check
def chosen_outputs_and_versions(client, kit):
    result = client.infer("digits", [kit.image(5)], model_version="1.0.0", outputs=[kit.scores()], request_id="five")
    close(result.as_numpy("scores"), 5, 1)
    assert result.as_numpy("other") is None
    response = result.get_response()
    response = response if isinstance(response, dict) else {"id": response.id, "model_version": response.model_version}
    assert (response["id"], response["model_version"]) == ("five", "1.0.0"), response


@check
def unknown_models_versions_and_tensors(client, kit):
    refused(lambda: client.infer("other", [kit.image()]), kit.unknown, "no model", "digits, digits-batch")
    refused(lambda: client.infer("digits", [kit.image()], model_version="9"), kit.unknown, 'version "9"')
    refused(lambda: client.get_model_metadata("other"), kit.unknown, "no model")
    refused(lambda: client.get_model_config("digits", "9"), kit.unknown, 'version "9"')
    tensor = kit.module.InferInput("picture", [1, 1, 8, 8], "FP32").set_data_from_numpy(IMAGES[:1])
    refused(lambda: client.infer("digits", [tensor]), kit.invalid, 'no input "picture"', "image")
    output = kit.module.InferRequestedOutput("labels")
    refused(lambda: client.infer("digits", [kit.image()], outputs=[output]), kit.invalid, 'no output "labels"')


@check
def wrong_types_and_values(client, kit):
    tensor = kit.module.InferInput("image", [1, 1, 8, 8], "FP64").set_data_from_numpy(IMAGES[:1].astype(np.float64))
    refused(lambda: client.infer("digits", [tensor]), kit.invalid, "is FP32, and FP64 was sent")
    broken = np.full([1, 1, 8, 8], np.nan, np.float32)
    tensor = kit.module.InferInput("image", [1, 1, 8, 8], "FP32").set_data_from_numpy(broken)
    refused(lambda: client.infer("digits", [tensor]), kit.invalid, "not a finite number")


@check
def timeouts(client, kit):
    close(client.infer("digits", [kit.image()], timeout=60_000_000).as_numpy("scores"), 0, 1)
    refused(lambda: client.infer("digits-batch", [kit.image(0, 64)], timeout=1), kit.expired, "timeout")


@check
def shared_memory_is_refused_by_name(client, kit):
    tensor = kit.module.InferInput("image", [1, 1, 8, 8], "FP32")
    tensor.set_shared_memory("region", 256)
    refused(lambda: client.infer("digits", [tensor]), kit.invalid, "shared memory")
    output = kit.scores()
    output.set_shared_memory("region", 40)
    refused(lambda: client.infer("digits", [kit.image()], outputs=[output]), kit.invalid, "shared memory")


@check
def sequences_are_taken_note_of(client, kit):
    for number, sequence in enumerate([7, 7, "a-text"]):
        result = client.infer("digits", [kit.image(number)], sequence_id=sequence, sequence_start=number != 1, priority=2)
        close(result.as_numpy("scores"), number, 1)


@check
def statistics(client, kit):
    def counts():
        found = client.get_inference_statistics("digits-batch", **kit.json)["model_stats"]
        assert [(s["name"], s["version"]) for s in found] == [("digits-batch", "1.0.0")], found
        stats = found[0]
        return int(stats["inference_stats"]["success"]["count"]), int(stats["execution_count"]), stats

    requests, executions, _ = counts()
    client.infer("digits-batch", [kit.image(0, 5)])
    later, more, stats = counts()
    assert (later, more) == (requests + 1, executions + 5)
    success, infer = stats["inference_stats"]["success"], stats["inference_stats"]["compute_infer"]
    assert int(success["ns"]) > int(infer["ns"]) > 0 and int(infer["count"]) == more
    assert {s["name"] for s in client.get_inference_statistics(**kit.json)["model_stats"]} == set(MODELS)


@check
def metadata_and_index(client, kit):
    server = client.get_server_metadata(**kit.json)
    assert server["name"] == "ballast-edge"
    assert {"binary_tensor_data", "statistics", "model_configuration"} <= set(server["extensions"]), server
    model = client.get_model_metadata("digits-batch", "1.0.0", **kit.json)
    shapes = [(t["name"], t["datatype"], [int(d) for d in t["shape"]]) for t in model["inputs"] + model["outputs"]]
    assert shapes == [("image", "FP32", [-1, 1, 8, 8]), ("scores", "FP32", [-1, 10])], model
    config = client.get_model_config("digits-batch", **kit.json)
    config = config.get("config", config)
    assert (config["max_batch_size"], config["input"][0]["data_type"]) == (64, "TYPE_FP32"), config
    assert [int(d) for d in config["input"][0]["dims"]] == [1, 8, 8], config
    index = client.get_model_repository_index(**kit.json)
    index = index["models"] if isinstance(index, dict) else index
    assert [(m["name"], m["version"], m["state"]) for m in index] == [(m, "1.0.0", "READY") for m in MODELS], index


def http(address):
    kit, kit.json = Http, {}
    with triton_http.InferenceServerClient(address, concurrency=4) as client:
        for function in CHECKS:
            function(client, kit)
            done(f"http {function.__name__}")

        # JSON and raw bytes in every combination.
        for given in [False, True]:
            for wanted in [False, True]:
                result = client.infer("digits-batch", [kit.image(9, 3, given)], outputs=[kit.scores(wanted)])
                close(result.as_numpy("scores"), 9, 3)
                assert ("data" in result.get_output("scores")) is not wanted
        done("http json and binary")

        # Compressed both ways.
        for request in [None, "gzip", "deflate"]:
            for response in [None, "gzip", "deflate"]:
                result = client.infer(
                    "digits-batch",
                    [kit.image(0, 64)],
                    request_compression_algorithm=request,
                    response_compression_algorithm=response,
                )
                close(result.as_numpy("scores"), 0, 64)
        refused(
            lambda: client.infer("digits", [kit.image()], headers={"Content-Encoding": "br"}), "415", "gzip, deflate or none"
        )
        done("http compressed")

        # Several in flight.
        pending = [client.async_infer("digits", [kit.image(n)]) for n in range(8)]
        for number, answer in enumerate(pending):
            close(answer.get_result().as_numpy("scores"), number, 1)
        done("http in parallel")

        # A classification asked for and not given would be a silent surprise.
        output = kit.scores(class_count=3)
        refused(lambda: client.infer("digits", [kit.image()], outputs=[output]), "400", "classification")
        # Answers that are raw bytes say how long their JSON is.
        body, length = triton_http.InferenceServerClient.generate_request_body([kit.image()])
        assert length < len(body)
        done("http details")
    asyncio.run(http_aio(address))


async def http_aio(address):
    async with triton_http_aio.InferenceServerClient(address) as client:
        assert await client.is_server_ready() and await client.is_model_ready("digits")
        results = await asyncio.gather(*(client.infer("digits", [Http.image(n)]) for n in range(4)))
        for number, result in enumerate(results):
            close(result.as_numpy("scores"), number, 1)
    done("http asyncio")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--http", required=True, metavar="ADDRESS:PORT")
    arguments = parser.parse_args()
    http(arguments.http)
    print(f"{len(DONE)} checks")


if __name__ == "__main__":
    main()
