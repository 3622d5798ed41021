"""Objects on Azure Blob Storage, through adlfs."""

import logging
from collections.abc import Iterator
from typing import Any

from flowcache.errors import StoreError, first_line, masked
from flowcache.storage.objects.backend import Entry
from flowcache.storage.objects.cloud import Answer, Client, CloudBackend, chain
from flowcache.storage.objects.schemes import AZURE, ONE_REQUEST

logging.getLogger("azure").addHandler(logging.NullHandler())  # it logs what it raises, and would print it


def adlfs_client() -> Client:
    """adlfs; ImportError where it is not installed."""
    from adlfs import AzureBlobFileSystem
    from aiohttp import ClientError
    from azure.core import exceptions as azure
    from azure.storage.blob.aio import BlobServiceClient

    def connect(**settings: Any) -> AzureBlobFileSystem:
        """adlfs makes a client that tries again for over a minute, and that sends large objects in several requests."""
        fs = AzureBlobFileSystem(**settings)
        made = fs.service_client
        fs.service_client = BlobServiceClient(
            made.url, credential=made.credential, retry_total=0, max_single_put_size=ONE_REQUEST
        )
        return fs

    return Client(
        connect,
        answers=(azure.HttpResponseError,),
        broken=(  # ValueError: the answer lacks a header
            *(azure.ServiceRequestError, azure.ServiceResponseError, azure.DecodeError),
            *(ClientError, ValueError),
        ),
        credentials=(azure.ClientAuthenticationError,),
        no_signature=(ValueError,),
    )


class AzureBackend(CloudBackend):
    """adlfs passes on the errors of Azure's client, but for a missing and an existing blob."""

    scheme = AZURE

    def __init__(self, url: str, options: dict[str, Any], client: Client | None = None):
        super().__init__(url, options, client or adlfs_client())

    def settings(self, options: dict[str, Any]) -> dict[str, Any]:
        if "endpoint_url" in options:
            raise StoreError(
                f"{masked(self.url)}: Azure's endpoint is a part of AZURE_STORAGE_CONNECTION_STRING; set that"
            )
        place = self.url.partition("://")[2].partition("/")[0]
        host = place.partition("@")[2]  # abfss://container@account.dfs.core.windows.net/prefix
        account = {"account_name": host.partition(".")[0]} if host else {}
        return {**account, "anon": False, **super().settings(options)}  # anon: older adlfs would go on as nobody

    def list(self, prefix: str) -> Iterator[Entry]:
        """adlfs lists a missing container as an empty one."""
        nothing = True
        for entry in super().list(prefix):
            nothing = False
            yield entry
        if nothing:
            self._check_container()

    def _check_container(self) -> None:
        try:
            self.fs.info(self.bucket)
        except FileNotFoundError:
            raise
        except self.client.answers as fault:
            if not self.of_machine(fault):  # credentials of a container alone may not ask about it
                raise

    def passing(self, fault: Exception) -> bool:
        """So does an answer that is no refusal and that the client could not use, such as half of one."""
        unusable = isinstance(fault, self.client.answers) and self.answer(fault) is None
        return (unusable and not self._lacks_credentials(fault)) or super().passing(fault)

    def answer(self, fault: BaseException | None) -> Answer | None:
        for link in chain(fault):
            status, code = getattr(link, "status_code", None) or 0, getattr(link, "error_code", None)
            if isinstance(link, self.client.answers) and status >= 400:
                return Answer(status, str(getattr(code, "value", code) or status), first_line(link))
        return None
