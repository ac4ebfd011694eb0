# Turns KAFKA_A_B=c into the property a.b=c, as the official image does, formats the storage once, and runs Kafka.
set -eu
env | grep '^KAFKA_' | grep -v '^KAFKA_HEAP_OPTS=' | while IFS='=' read -r name value; do
  printf '%s=%s\n' "$(printf '%s' "${name#KAFKA_}" | tr '[:upper:]_' '[:lower:].')" "$value"
done >/tmp/server.properties
java="java ${KAFKA_HEAP_OPTS:--Xmx512m} -XX:+UseG1GC -Dlog4j2.configurationFile=/opt/kafka/log4j2.yaml"
export CLASSPATH='/opt/kafka/libs/*'
# a restart finds it formatted, and is spared the start of another JVM
[ -e "$KAFKA_LOG_DIRS/meta.properties" ] ||
  $java kafka.tools.StorageTool format -t "${CLUSTER_ID:-5L6g3nShT-eMCtK--X86sw}" -c /tmp/server.properties
exec $java kafka.Kafka /tmp/server.properties
