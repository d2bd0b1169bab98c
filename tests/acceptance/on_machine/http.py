"""Send HTTP requests one after another; TLS certificates are returned, not judged."""

import base64
import http.client
import json
import ssl
import sys
import urllib.parse


def ask(request: dict) -> dict:
    """Return the answer to one request, or why there was none."""
    url = urllib.parse.urlsplit(request["url"])
    answer = {"url": f"{request.get('method', 'GET')} {request['url']}", "status": 0}
    answer |= {"headers": {}, "body": "", "error": "", "certificate": ""}
    timeout = request.get("timeout", 5)
    if url.scheme == "https":
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection(
            url.hostname, url.port, timeout=timeout, context=context
        )
    else:
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=timeout)
    try:
        connection.request(
            request.get("method", "GET"),
            urllib.parse.urlunsplit(("", "", url.path or "/", url.query, "")),
            request.get("body"),
            request.get("headers", {}),
        )
        if url.scheme == "https":
            der = connection.sock.getpeercert(binary_form=True)
            answer["certificate"] = base64.b64encode(der).decode()
        response = connection.getresponse()
        answer["body"] = response.read().decode(errors="replace")
        answer["headers"] = {name.lower(): value for name, value in response.getheaders()}
        answer["status"] = response.status
    except (OSError, http.client.HTTPException) as error:
        answer["error"] = f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    return answer


print(json.dumps([ask(request) for request in json.loads(sys.argv[1])]))
