"""Certificates to sign with, made for a test."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

KEYS = {
    "es256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "es384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ps256": lambda: rsa.generate_private_key(65537, 2048),
}


class Signer(NamedTuple):
    """PEM texts: the chain, the signer's key, and the authority above it."""

    chain: str
    key: str
    authority: str


def signer(algorithm: str = "es256") -> Signer:
    above, own = ec.generate_private_key(ec.SECP256R1()), KEYS[algorithm]()
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    authority = _certificate("authority", above.public_key(), {"key_cert_sign": True, "crl_sign": True} | usage)
    authority = authority.sign(above, hashes.SHA256())
    leaf = _certificate("signer", own.public_key(), {"key_cert_sign": False, "crl_sign": False} | usage)
    leaf = leaf.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), True)
    leaf = leaf.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(above.public_key()), False)
    leaf = leaf.sign(above, hashes.SHA256())
    pem = serialization.Encoding.PEM
    key = own.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    texts = [one.public_bytes(pem).decode() for one in (leaf, authority)]
    return Signer("".join(texts), key.decode(), texts[1])


def _certificate(name: str, key, usage: dict[str, bool]) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name("authority"))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.BasicConstraints(name == "authority", None), True)
        .add_extension(x509.KeyUsage(digital_signature=True, **usage), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), False)
    )


def _name(of: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.COMMON_NAME, of), x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Tests")]
    )
