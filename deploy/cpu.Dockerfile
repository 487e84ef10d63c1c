# A server on CPUs: docker build -f deploy/cpu.Dockerfile -t jotr-deploy-cpu .
# Not built or run by this project's tests (no Docker engine).
FROM python:3.12-slim

RUN useradd --create-home jotr
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir '.[cpu,serve]'

USER jotr
WORKDIR /home/jotr
EXPOSE 8080

# The bundle is mounted at /bundle; other addresses than loopback need a token, here from a mounted secret.
ENTRYPOINT ["jotr-deploy", "serve"]
CMD ["/bundle", "--host", "0.0.0.0", "--token-file", "/secrets/token"]
