/** A key and a self-signed certificate for "localhost", 127.0.0.1 and ::1, valid from 2020 to 2120: for tests alone. */

/** The private key. It protects nothing. */
export const key = `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgwUcSVjuh9aY+zHov
IUNVa8BLAOf9PQG0T6zYQpDUhFuhRANCAAQ9tNTX6P4AxVA84Tvoad2BZMerCK4x
RSS9gcsysfQth3sZim5bzlkZ0Qv8Fk41YAImlTXUgQx5cvOWIkUldAqt
-----END PRIVATE KEY-----
`;

/** The certificate, which is its own authority. */
export const certificate = `-----BEGIN CERTIFICATE-----
MIIBdjCCARygAwIBAgIBAjAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlsb2NhbGhv
c3QwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMM
CWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABD201Nfo/gDFUDzh
O+hp3YFkx6sIrjFFJL2ByzKx9C2HexmKblvOWRnRC/wWTjVgAiaVNdSBDHly85Yi
RSV0Cq2jXTBbMCwGA1UdEQQlMCOCCWxvY2FsaG9zdIcEfwAAAYcQAAAAAAAAAAAA
AAAAAAAAATAMBgNVHRMBAf8EAjAAMB0GA1UdDgQWBBSOmZ5G103/nkIZmww+ce+l
mH/DPTAKBggqhkjOPQQDAgNIADBFAiEAzcKTZYi7taQSrIHiZwRuOibrK2IBO3Gc
ybp11CkCVLQCIBeajOitQmgtPgcnWjfZdE6H05Gy+p5Y4jxgNN0Cw95T
-----END CERTIFICATE-----
`;
