# The course's service in a container: lesson 5's assistant, or any other ServedModel.
#
#     docker build -t multimodal .
#     docker run --rm -p 8000:8000 --read-only --tmpfs /tmp --memory 4g --cap-drop ALL multimodal
#
# Two stages, so that the image which clients reach contains no build tools.

FROM python:3.12-slim-bookworm AS packages
WORKDIR /course
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
# Packages before code: a change of the code alone reinstalls nothing.
COPY requirements.txt constraints.txt ./
# PyTorch's CPU build. For a host with a GPU, build with --build-arg TORCH_INDEX=https://pypi.org/simple.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --index-url "$TORCH_INDEX" --extra-index-url https://pypi.org/simple "$(grep '^torch==' constraints.txt)" \
    && pip install -c constraints.txt -r requirements.txt

FROM python:3.12-slim-bookworm
# A user without shell, home directory or write access.
RUN groupadd --system --gid 10001 service \
    && useradd --system --no-log-init --uid 10001 --gid service --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin service
COPY --from=packages /opt/venv /opt/venv
WORKDIR /course
COPY shared ./shared
COPY data ./data
COPY lessons ./lessons
COPY apps ./apps
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/course PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 OMP_NUM_THREADS=2
USER 10001:10001
EXPOSE 8000
# /health is 200 only once the model is loaded and while it makes progress.
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-S", "shared/serving/healthcheck.py"]
STOPSIGNAL SIGTERM
# Without a shell in between, the service receives the signal and shuts down cleanly.
CMD ["python", "-m", "apps.assistant", "serve", "--host", "0.0.0.0", "--port", "8000"]
