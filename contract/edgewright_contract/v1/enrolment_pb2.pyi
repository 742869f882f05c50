from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class EnrolRequest(_message.Message):
    __slots__ = ("token", "csr_der")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    CSR_DER_FIELD_NUMBER: _ClassVar[int]
    token: str
    csr_der: bytes
    def __init__(self, token: _Optional[str] = ..., csr_der: _Optional[bytes] = ...) -> None: ...

class EnrolResponse(_message.Message):
    __slots__ = ("certificate_chain_pem", "ca_pem", "device", "fleet", "image_root", "director_root", "controller_address", "mqtt_address")
    CERTIFICATE_CHAIN_PEM_FIELD_NUMBER: _ClassVar[int]
    CA_PEM_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    FLEET_FIELD_NUMBER: _ClassVar[int]
    IMAGE_ROOT_FIELD_NUMBER: _ClassVar[int]
    DIRECTOR_ROOT_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    MQTT_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    certificate_chain_pem: bytes
    ca_pem: bytes
    device: str
    fleet: str
    image_root: bytes
    director_root: bytes
    controller_address: str
    mqtt_address: str
    def __init__(self, certificate_chain_pem: _Optional[bytes] = ..., ca_pem: _Optional[bytes] = ..., device: _Optional[str] = ..., fleet: _Optional[str] = ..., image_root: _Optional[bytes] = ..., director_root: _Optional[bytes] = ..., controller_address: _Optional[str] = ..., mqtt_address: _Optional[str] = ...) -> None: ...

class LoginRequest(_message.Message):
    __slots__ = ("token", "csr_der")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    CSR_DER_FIELD_NUMBER: _ClassVar[int]
    token: str
    csr_der: bytes
    def __init__(self, token: _Optional[str] = ..., csr_der: _Optional[bytes] = ...) -> None: ...

class LoginResponse(_message.Message):
    __slots__ = ("certificate_chain_pem", "ca_pem", "name", "role", "fleet", "controller_address")
    CERTIFICATE_CHAIN_PEM_FIELD_NUMBER: _ClassVar[int]
    CA_PEM_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ROLE_FIELD_NUMBER: _ClassVar[int]
    FLEET_FIELD_NUMBER: _ClassVar[int]
    CONTROLLER_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    certificate_chain_pem: bytes
    ca_pem: bytes
    name: str
    role: str
    fleet: str
    controller_address: str
    def __init__(self, certificate_chain_pem: _Optional[bytes] = ..., ca_pem: _Optional[bytes] = ..., name: _Optional[str] = ..., role: _Optional[str] = ..., fleet: _Optional[str] = ..., controller_address: _Optional[str] = ...) -> None: ...
