"""A real registry for tests, with a login where one is wanted, and a proxy in front of it that does what goes wrong.

::

    with registry(tmp_path, login=LOGIN) as place, Registry.at(place, LOGIN) as client:
        ...

    with registry(tmp_path) as place, faulty(place) as proxy, Registry.at(proxy.place) as client:
        proxy.fail(Fault("PUT", "*/manifests/nightly", reset=True))
        with pytest.raises(ImageError): ...
        assert proxy.injected == 1

`skopeo` looks at what is in it without our code.
"""

from __future__ import annotations

from tests.support.image_registry.images import Blobs, small_image
from tests.support.image_registry.proxy import Fault, FaultyProxy, faulty
from tests.support.image_registry.real import LOGIN, PATH, registry, skopeo
from tests.support.image_registry.tokens import TokenServer, token_registry
from tests.support.image_registry.web import Asked, Reply, Web

__all__ = [
    "LOGIN",
    "PATH",
    "Asked",
    "Blobs",
    "Fault",
    "FaultyProxy",
    "Reply",
    "TokenServer",
    "Web",
    "faulty",
    "registry",
    "skopeo",
    "small_image",
    "token_registry",
]
