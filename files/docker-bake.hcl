# All services' images side by side. The caller gives base and tags:
#   docker buildx bake --set '*.args.BASE=stackyard/base:…' --set api.tags=stackyard/api:… api
target "service" {
  name    = service
  matrix  = { service = ["gateway", "frontend", "api", "database", "cache"] }
  context = service
}
