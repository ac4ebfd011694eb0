"""The contract, executed: what the author of a backend, and a service's own tests, need. Nothing here runs a service.

promises      the contract as data: numbers, texts, the capabilities each needs
conformance   the promises as tests; needs pytest
harness       what a backend's author supplies, about thirty lines
service colours scene worker faults record waiting   what the tests are written with: a service of either colour,
              a worker in a process, a seam that breaks on demand, what happened, and how to wait for it
report        a pytest plugin: the table of promises and backends
short         which tests the suite's short form leaves out
"""
